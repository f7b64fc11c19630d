"""The interpreter's clock as a replica estimates it: windows of policies are judged by it, not by the replica's own.

Each message that says when it was sent is compared with this machine's monotonic clock, which nobody sets. Knows no
network. Not here: what a window is (`policies`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_KEPT = 5


class PartnerClock:
    """The time at a partner, from the times it stamps on what it sends. One thread feeds it, any number read it.

    A message is late by however long it travelled, so the largest difference seen is the best; the second largest
    of the last few is taken, which a single wrong stamp cannot move. When the partner's own clock is set, it follows
    within two messages ahead and four back.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time, kept: int = _KEPT
    ) -> None:
        """`clock` never jumps; `wall` is this machine's time of day, used until something was heard."""
        self._clock = clock
        self._wall = wall
        self._seen: deque[float] = deque(maxlen=kept)
        self._base: float | None = None

    def heard(self, sent_at: float) -> None:
        """Takes the stamp of a message that has just arrived, in seconds since the epoch."""
        self._seen.append(sent_at - self._clock())
        self._base = sorted(self._seen)[-2:][0]

    def now(self) -> float:
        """Seconds since the epoch at the partner; this machine's own where nothing was heard yet."""
        base = self._base
        return self._wall() if base is None else base + self._clock()

    @property
    def offset_s(self) -> float:
        """The partner's time less this machine's; 0 where nothing was heard yet."""
        return 0.0 if self._base is None else self.now() - self._wall()
