"""Use case: the plans of a model as a stream: the current ones at once, each change, heartbeats between.

A heartbeat says "these are still right", so none is sent while the state server does not answer: the stream ends,
and recommenders count the age of what they hold. Streams also end when the server drains and after a maximal life.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from recsae.errors import UnavailableError
from recsae.steering.follower import HEARTBEAT_S
from recsae.steering.plans import PlanSet
from recsae_interpreter.board import PlanBoard

# How soon a stream notices that it should end.
_LOOK_S = 0.25


@dataclass(frozen=True)
class Heartbeat:
    """Nothing changed since `revision`."""

    revision: int


class WatchHandler:
    """Streams plans."""

    def __init__(
        self,
        board: PlanBoard,
        *,
        state_age_s: Callable[[], float],
        state_max_age_s: float,
        max_stream_s: float,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        """`state_age_s` says how long ago the state server last answered."""
        self._board = board
        self._state_age_s = state_age_s
        self._state_max_age_s = state_max_age_s
        self._max_stream_s = max_stream_s
        self._heartbeat_s = heartbeat_s

    def __call__(self, model: str, ended: Callable[[], bool]) -> Iterator[PlanSet | Heartbeat]:
        """Plans and heartbeats until `ended` says so; UnavailableError while the state server is not answering."""
        ends_at = time.monotonic() + self._max_stream_s
        seen, said_at = 0, 0.0
        while not ended() and time.monotonic() < ends_at:
            posting = self._board.wait_for_change(seen, _LOOK_S)
            if self._state_age_s() > self._state_max_age_s:
                raise UnavailableError("the state server does not answer, so nobody knows whether plans have changed")
            now = time.monotonic()
            if posting.number > seen:
                seen, said_at = posting.number, now
                yield posting.of(model)
            elif seen and now - said_at >= self._heartbeat_s:
                said_at = now
                yield Heartbeat(posting.revision)
