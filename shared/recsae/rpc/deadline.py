"""How much time a request has left, as a value that handlers can carry without knowing gRPC.

gRPC in Python propagates no deadline by itself: each outgoing call asks `Deadline.budget` for its timeout.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from recsae.errors import DeadlineExceededError

DEFAULT_MARGIN_S = 0.005
# A call without a deadline says that centuries remain, which no lock of Python's would wait for.
_LONGEST_S = 366 * 86_400.0


@dataclass(frozen=True)
class Deadline:
    """A point on the monotonic clock, in seconds; None = no end."""

    at: float | None = None

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """The deadline `seconds` from now; None, and more than a year, = no end."""
        return cls(None if seconds is None or seconds > _LONGEST_S else time.monotonic() + seconds)

    def remaining(self) -> float | None:
        """Seconds left, negative once it has passed; None = no end."""
        return None if self.at is None else self.at - time.monotonic()

    @property
    def expired(self) -> bool:
        """True once the time has run out."""
        return self.at is not None and time.monotonic() >= self.at

    def budget(self, most_s: float, *, margin_s: float = DEFAULT_MARGIN_S) -> float:
        """Timeout in seconds for an outgoing call: min(most_s, remaining - margin_s).

        DeadlineExceededError when nothing is left, so that no call is started in vain.
        """
        left = self.remaining()
        if left is None:
            return most_s
        budget = min(most_s, left - margin_s)
        if budget <= 0:
            raise DeadlineExceededError(
                f"{max(left, 0) * 1e3:.1f} ms are left of this request, less than the margin of "
                f"{margin_s * 1e3:.1f} ms; give the call a longer deadline"
            )
        return budget
