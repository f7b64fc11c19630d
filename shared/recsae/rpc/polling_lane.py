"""A batch lane without a thread of its own: calls run where grpcio's server polls for its events.

With a thread for events and one for calls, half of a recommendation's processor time goes into handing each call over
and back four times. Here the polling thread takes what events there are, runs the calls they concern as greenlets,
computes a batch when no event waits, and only then blocks. Nothing else of the server is served meanwhile, so a batch
has to be short and nothing in a call may block.

grpcio has no hook for this. Private names of its server are used (`_serve`, `_process_event_and_continue`,
`_begin_shutdown_once`, and the condition of an `_RPCState`), as they are in the releases of `KNOWN`, which tests run
on; with any other release a `BatchLane` with a thread takes its place (`serves_polling`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
from greenlet import getcurrent, greenlet

from recsae.rpc.batch_lane import BatchLane

KNOWN = ("1.85.",)
# grpcio's own: how often it looks whether its server was forgotten without being stopped.
_BLOCKED_S = 1.0
# While something is done aside, whose end is no event of the completion queue.
_LOOK_S = 0.001
# Events taken between two batches at most: without a bound a flood of new calls would hold up those that wait.
_EVENTS_AT_ONCE = 256
# Where the state of a call stands among what grpcio submits: context.run, the function, the event, the state.
_STATE = 2

_starting = threading.Lock()


def serves_polling() -> bool:
    """True with a release of grpcio whose internals are known."""
    return grpc.__version__.startswith(KNOWN)


class PollingLane(BatchLane):
    """Runs calls in the polling thread of the server that `start_polling` starts."""

    def let_park(self, arguments: tuple[Any, ...]) -> None:
        """As `BatchLane.let_park`, where one thread does it all."""
        arguments[_STATE].condition = _ParkingCondition(self)

    def begin(self, call: Callable[[], None]) -> None:
        """Queues a call in the polling thread, where it was submitted."""
        self.resume(greenlet(call))


class _ParkingCondition:
    """Stands for the condition a call waits on for its message: it parks the call instead of blocking the thread."""

    __slots__ = ("_lane", "_lock", "_parked")

    def __init__(self, lane: PollingLane) -> None:
        self._lane, self._lock = lane, threading.RLock()
        self._parked: greenlet | None = None

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_exception: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> None:
        """Parks until `notify_all`. grpcio waits without a timeout and looks itself whether to go on."""
        self._parked = getcurrent()
        self._lock.release()
        self._lane.park()
        self._lock.acquire()

    def notify_all(self) -> None:
        """Called by the polling thread, when a message or the end of the call has come."""
        if self._parked is not None:
            parked, self._parked = self._parked, None
            self._lane.resume(parked)


def start_polling(server: grpc.Server, lane: PollingLane) -> None:
    """Starts the server with its polling thread running the lane's calls."""
    from grpc import _server

    internals: Any = _server
    with _starting:  # `start` looks the function up by its name in the module
        plain = internals._serve
        internals._serve = partial(_serve, lane)
        try:
            server.start()
        finally:
            internals._serve = plain


def _serve(lane: PollingLane, state: Any) -> None:
    """The loop of grpcio over the events of a server's completion queue, and calls and batches between them."""
    from grpc import _server
    from grpc._cython import cygrpc  # type: ignore[attr-defined]

    internals: Any = _server
    nothing = cygrpc.CompletionType.queue_timeout
    queue, taken = state.completion_queue, 0
    lane.settle_in()
    while True:
        event = queue.poll(0) if taken < _EVENTS_AT_ONCE else None
        if event is None or event.completion_type == nothing:
            taken = 0
            if lane.turn():
                continue
            lane.tell_idle()
            event = queue.poll(time.time() + (_LOOK_S if lane.waits_aside else _BLOCKED_S))
        if state.server_deallocated:
            internals._begin_shutdown_once(state)
        taken += 1
        if event.completion_type != nothing and not internals._process_event_and_continue(state, event):
            break
        # As in grpcio: an event that refers to a finished call must be gone before the next poll.
        event = None
    # Calls whose callers are gone hold up no end of the server, and have theirs now.
    while lane.turn():
        pass
    lane.tell_idle()
