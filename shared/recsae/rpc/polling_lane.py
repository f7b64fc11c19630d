"""A batch lane without a thread of its own: calls run where grpcio's server polls for its events.

With a thread for events and one for calls, half of a recommendation's processor time goes into handing each call over
and back four times. Here the polling thread takes what events there are, runs the calls they concern as greenlets,
computes a batch when no event waits, and only then blocks. Nothing else of the server is served meanwhile, so a batch
has to be short and nothing in a call may block.

grpcio has no hook for this. Private names of its server are used (`_serve`, `_process_event_and_continue`,
`_begin_shutdown_once`, and the condition of an `_RPCState`), as they are in the releases `recsae.rpc.grpc_engine`
knows, which tests run on; with any other release a `BatchLane` with a thread takes its place (`serves_polling`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
from greenlet import greenlet

from recsae.rpc.batch_lane import BatchLane
from recsae.rpc.grpc_engine import is_known

# grpcio's own: how often it looks whether its server was forgotten without being stopped.
_BLOCKED_S = 1.0
# While something is done aside, whose end is no event of the completion queue.
_LOOK_S = 0.001
# Events taken between two batches at most: without a bound a flood of new calls would hold up those that wait.
_EVENTS_AT_ONCE = 256

_starting = threading.Lock()


def serves_polling() -> bool:
    """True with a release of grpcio whose internals are known."""
    return is_known(grpc.__version__)


class PollingLane(BatchLane):
    """Runs calls in the polling thread of the server that `start_polling` starts; grpcio submits them there too."""

    def begin(self, call: Callable[[], None]) -> None:
        """Queues a call where it was submitted."""
        self.resume(greenlet(call))

    def resume_anywhere(self, call: greenlet) -> None:
        """Messages arrive where calls run; what is done aside ends elsewhere."""
        if self.is_running_here():
            self.resume(call)
        else:
            super().resume_anywhere(call)


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
