"""Per-principal limits: calls a second (a token bucket) and calls held at once, so that no caller starves the others.

Both are counted in the process: a principal's whole allowance is that of one replica times the replicas. Not here:
the server's own bounds, which hold for everyone together (`recsae.rpc.lanes`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from recsae.errors import ResourceExhaustedError

Refused = Callable[[str, str], None]
"""Counts a refusal by principal and limit ("rate" or "in_flight")."""


@dataclass(frozen=True)
class Limits:
    """What each principal may take of a server; 0 = no limit."""

    rate: float = 0.0
    """Calls a second in the long run."""
    burst: int = 100
    """Calls at once after a pause, at least 1; counts with `rate` alone."""
    in_flight: int = 0
    """Calls held at once, open streams included."""

    @property
    def any(self) -> bool:
        """True when there is something to count."""
        return self.rate > 0 or self.in_flight > 0


class Quota:
    """What one principal has taken. Threads may share it."""

    def __init__(
        self, principal: str, limits: Limits, refused: Refused, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """A full bucket and no call held; `clock` gives seconds."""
        self._principal, self._limits, self._refused, self._clock = principal, limits, refused, clock
        self._lock = threading.Lock()
        self._left = float(limits.burst)
        self._at = clock()
        self._held = 0

    @property
    def held(self) -> int:
        """Calls between `enter` and `leave`."""
        return self._held

    def take(self) -> None:
        """Counts one call that comes; ResourceExhaustedError when it is one too many.

        Calls held are looked at, not counted: a call may be cancelled before it runs, and only one that runs surely
        reaches `leave`.
        """
        if self._full:
            raise self._too_many()
        rate = self._limits.rate
        if rate <= 0:
            return
        with self._lock:
            now = self._clock()
            left = min(self._left + (now - self._at) * rate, self._limits.burst)
            self._at = now
            self._left = left if left < 1 else left - 1
        if left < 1:
            self._refused(self._principal, "rate")
            raise ResourceExhaustedError(
                f"principal {self._principal!r} makes more than {rate:g} calls a second (principal_rate, at most "
                f"{self._limits.burst} at once): retry in {(1 - left) / rate:.2g} s with a back-off, or have the "
                "limit raised"
            )

    def enter(self) -> None:
        """Holds one call until `leave`; ResourceExhaustedError when as many as may be are held."""
        with self._lock:
            if not self._full:
                self._held += 1
                return
        raise self._too_many()

    def leave(self) -> None:
        """Ends what `enter` began."""
        with self._lock:
            self._held -= 1

    @property
    def _full(self) -> bool:
        return 0 < self._limits.in_flight <= self._held

    def _too_many(self) -> ResourceExhaustedError:
        self._refused(self._principal, "in_flight")
        return ResourceExhaustedError(
            f"principal {self._principal!r} has {self._limits.in_flight} calls in flight, as many as it may "
            "(principal_in_flight): wait for one to end before the next, or have the limit raised"
        )
