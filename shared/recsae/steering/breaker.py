"""A circuit breaker: a partner that failed too often just now is left alone, then tried by one call at a time.

closed -> open after so many failures in a row -> after a pause one probe -> closed, or open again for longer. Pauses
are drawn at random, so that many clients that lost a partner together do not come back to it together.
Knows no network, and time and chance are handed in.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class BreakerState(IntEnum):
    """As the metric shows it."""

    CLOSED = 0
    PROBING = 1
    OPEN = 2


@dataclass(frozen=True)
class BreakerLimits:
    """`failures` in a row open it. The n-th pause in a row is `pause_s` * 2^n up to `longest_pause_s`, times 0.5-1.5.

    A probe that reports nothing for `probe_s` counts as lost.
    """

    failures: int = 5
    pause_s: float = 0.5
    longest_pause_s: float = 5.0
    probe_s: float = 5.0


class Breaker:
    """Says before each call whether to make it, and is told how it went. Safe to use from several threads."""

    def __init__(
        self,
        limits: BreakerLimits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`clock` in seconds, `uniform(low, high)` draws the jitter."""
        self._limits = limits or BreakerLimits()
        self._clock = clock
        self._uniform = uniform
        self._lock = threading.Lock()
        self._state = BreakerState.CLOSED
        self._generation = 0
        self._failures = 0
        self._openings = 0
        self._until = 0.0

    @property
    def state(self) -> BreakerState:
        """CLOSED, OPEN (nothing is asked), or PROBING (one call is out)."""
        return self._state

    def admit(self) -> int | None:
        """A ticket for one call, to be handed back to `succeeded`, `failed` or `withdrawn`; None = do not call."""
        with self._lock:
            if self._state is BreakerState.CLOSED:
                return self._generation
            if self._clock() < self._until:
                return None
            self._become(BreakerState.PROBING, self._limits.probe_s)
            return self._generation

    def succeeded(self, ticket: int) -> None:
        """The call was answered."""
        with self._lock:
            if ticket != self._generation:
                return
            self._failures = 0
            if self._state is not BreakerState.CLOSED:
                self._openings = 0
                self._become(BreakerState.CLOSED, 0.0)

    def failed(self, ticket: int) -> None:
        """The call failed by the partner's fault. Calls that began before it opened change nothing any more."""
        with self._lock:
            if ticket != self._generation:
                return
            self._failures += 1
            if self._state is BreakerState.PROBING or self._failures >= self._limits.failures:
                self._open()

    def withdrawn(self, ticket: int) -> None:
        """The call says nothing about the partner: the caller itself had too little time, say."""
        with self._lock:
            if ticket == self._generation and self._state is BreakerState.PROBING:
                # Open as before: the next caller probes, and the pause is not lengthened by what was nobody's fault.
                self._become(BreakerState.OPEN, 0.0)

    def _open(self) -> None:
        pause = min(self._limits.pause_s * 2 ** min(self._openings, 16), self._limits.longest_pause_s)
        self._openings += 1
        self._become(BreakerState.OPEN, pause * self._uniform(0.5, 1.5))

    def _become(self, state: BreakerState, seconds: float) -> None:
        self._state = state
        self._generation += 1
        self._until = self._clock() + seconds
