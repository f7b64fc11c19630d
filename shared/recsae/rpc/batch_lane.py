"""A lane in which calls are computed together: one thread, and a call that waits for its batch does not hold it.

Each call runs in a greenlet, and parks where it has to wait for its batch; once no other call is ready to run, the lane
computes one batch of those parked and lets each go on where it stopped. A thread per waiting call, woken one by one,
costs more processor time than a recommendation takes. What would block on something far away is done `aside`, in
threads of its own. Not here: what a batch computes, and which calls are batched (`RpcServer.add`).
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import structlog
from greenlet import getcurrent, greenlet

from recsae.rpc.lanes import no_room

P = ParamSpec("P")
T = TypeVar("T")

_log = structlog.get_logger(__name__)
_ASIDE_THREADS = 16
# Calls begun between two batches at most: without a bound a flood of new ones would hold up those that wait.
_BEGUN_AT_ONCE = 64
_TURNS_BETWEEN_BATCHES = 8


class Batches(Protocol):
    """Requests that wait to be computed together."""

    def ready(self) -> bool:
        """True while requests wait."""

    def compute(self) -> None:
        """Computes one batch and resumes those of it by `BatchLane.resume`."""


class BatchLane(ThreadPoolExecutor):
    """An executor for grpcio's per-behaviour thread pools; it starts none of the threads of its base class."""

    def __init__(self, name: str, *, most_held: int) -> None:
        """Holds at most `most_held` calls, as `check_room` says. Runs nothing before `start`."""
        super().__init__(max_workers=1)
        self.name = name
        self.capacity = most_held
        self._submitted = self._ended = 0
        self._inbox: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._resumed: deque[tuple[greenlet, BaseException | None]] = deque()
        self._batches: list[Batches] = []
        self._idle = threading.Condition()
        self._closed = False
        self._turns = 0
        self._aside = ThreadPoolExecutor(_ASIDE_THREADS, thread_name_prefix=f"recsae-{name}-aside")
        self.waits_aside = 0
        """Calls that wait for something done aside."""
        self._hub: greenlet | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> BatchLane:
        """Runs calls in a thread of its own from now on; returns itself."""
        self._thread = threading.Thread(target=self._run, name=f"recsae-{self.name}", daemon=True)
        self._thread.start()
        return self

    @property
    def held(self) -> int:
        """Calls running or waiting."""
        return self._submitted - self._ended

    def check_room(self) -> None:
        """ResourceExhaustedError when the lane is full."""
        if self.held >= self.capacity:
            raise no_room(self.name, self.held, self.capacity)

    def join(self, batches: Batches) -> None:
        """From now on `batches` are computed whenever no call is ready to run."""
        self._batches.append(batches)

    def is_running_here(self) -> bool:
        """True in a call of this lane: only there can one park."""
        return threading.current_thread() is self._thread

    def park(self) -> None:
        """Gives the thread to other calls until `resume`; raises the error given there."""
        assert self._hub is not None, "calls run in the lane's own thread"
        self._hub.switch()

    def resume(self, call: greenlet, error: BaseException | None = None) -> None:
        """Lets a parked call go on, in the lane's thread; called there."""
        self._resumed.append((call, error))

    def resume_anywhere(self, call: greenlet) -> None:
        """As `resume`, called in any thread."""
        self._inbox.put(call.switch)

    def aside(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn`'s result, computed in another thread while other calls go on; outside of the lane, right here."""
        if not self.is_running_here():
            return fn(*args, **kwargs)
        context = contextvars.copy_context()
        call, outcome = getcurrent(), self._aside.submit(lambda: context.run(fn, *args, **kwargs))
        outcome.add_done_callback(lambda _done: self.resume_anywhere(call))
        self.waits_aside += 1
        try:
            self.park()
        finally:
            self.waits_aside -= 1
        return outcome.result()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Runs a call in the lane. What comes back knows no more of futures than `add_done_callback`."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self._park_where_grpc_waits(args)
        ended = _Ended()
        self._submitted += 1

        def call() -> None:
            try:
                fn(*args, **kwargs)
            except BaseException as error:  # grpcio's own: what a call raises it has turned into a status
                _log.error("call_lost", lane=self.name, exc_info=error)
            finally:
                self._ended += 1
                ended.end()

        self.begin(call)
        return cast("Future[T]", ended)

    def begin(self, call: Callable[[], None]) -> None:
        """Queues a new call; any thread may. Its greenlet belongs to the thread that makes it, which is the lane's."""
        self._inbox.put(lambda: greenlet(call).switch())

    def wait_idle(self, timeout_s: float) -> bool:
        """True once no call is held; False when that took longer than `timeout_s`."""
        with self._idle:
            return self._idle.wait_for(lambda: self.held == 0, timeout_s)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls; those held go on to their end."""
        self._closed = True
        self._inbox.put(lambda: None)
        self._aside.shutdown(wait=False, cancel_futures=cancel_futures)
        super().shutdown(wait=False)
        if wait and self._thread is not None:
            self._thread.join()

    def settle_in(self) -> None:
        """Makes the current thread and greenlet the ones that run calls."""
        self._thread, self._hub = threading.current_thread(), getcurrent()

    def run_ready(self) -> bool:
        """Runs calls that can go on or begin; False when there was none."""
        resumed, inbox = self._resumed, self._inbox
        waiting = min(inbox.qsize(), _BEGUN_AT_ONCE)
        ran = bool(resumed) or waiting > 0
        while resumed:
            call, error = resumed.popleft()
            call.switch() if error is None else call.throw(error)
        for _ in range(waiting):
            inbox.get()()
        return ran

    def compute_one(self) -> bool:
        """Computes one batch of calls that wait; False when none does."""
        ready = next((batches for batches in self._batches if batches.ready()), None)
        if ready is None:
            return False
        # The next one is another's turn, so that a busy model does not starve the others.
        self._batches.append(self._batches.pop(self._batches.index(ready)))
        ready.compute()
        return True

    def turn(self) -> bool:
        """Runs what is ready, else computes one batch; False when there was nothing to do. Never raises.

        A batch is due after some turns all the same: a flood of new calls must not hold up those that wait.
        """
        try:
            ran = self.run_ready()
            if ran and self._turns < _TURNS_BETWEEN_BATCHES:
                self._turns += 1
                return True
            self._turns = 0
            return self.compute_one() or ran
        except BaseException as error:  # with this thread every call would end
            _log.error("lane_turn_failed", lane=self.name, exc_info=error)
            return True

    def tell_idle(self) -> None:
        """Wakes those in `wait_idle`, when no call is held."""
        if self.held == 0:
            with self._idle:
                self._idle.notify_all()

    def _park_where_grpc_waits(self, arguments: tuple[Any, ...]) -> None:
        """Makes a call park for its request message, for which grpcio blocks on the condition of the call's state.

        A caller who sends headers and no message would hold up everybody.
        """
        for argument in arguments:
            condition = getattr(argument, "condition", None)
            if isinstance(condition, threading.Condition):
                argument.condition = _ParkingCondition(self, condition)

    def _run(self) -> None:
        self.settle_in()
        while not (self._closed and self.held == 0):
            if not self.turn():
                self.tell_idle()
                self.begin_next()

    def begin_next(self) -> None:
        """Waits for something to run, and runs it. Never raises."""
        try:
            self._inbox.get()()
        except BaseException as error:
            _log.error("lane_turn_failed", lane=self.name, exc_info=error)


class _ParkingCondition:
    """Stands for another condition, with its lock: a call of a lane parks here instead of blocking its thread."""

    __slots__ = ("_lane", "_lock", "_parked")

    def __init__(self, lane: BatchLane, condition: threading.Condition) -> None:
        held: Any = condition
        self._lane, self._lock = lane, held._lock
        self._parked: greenlet | None = None

    def __enter__(self) -> bool:
        taken: bool = self._lock.acquire()
        return taken

    def __exit__(self, *_exception: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> None:
        """Parks until `notify_all`. grpcio waits without a timeout, and looks itself whether to go on."""
        self._parked, held = getcurrent(), self._lock._release_save()
        try:
            self._lane.park()
        finally:
            self._lock._acquire_restore(held)

    def notify_all(self) -> None:
        """Lets the call go on, when its message has come or its caller has gone."""
        if self._parked is not None:
            parked, self._parked = self._parked, None
            self._lane.resume_anywhere(parked)


class _Ended:
    """That a call has ended, for the one callback grpcio adds; whichever comes last, end or callback, calls it."""

    __slots__ = ("_callbacks", "_has_ended")

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Any], object]] = []
        self._has_ended = False

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        self._callbacks.append(fn)
        if self._has_ended:
            self._call()

    def end(self) -> None:
        self._has_ended = True
        self._call()

    def _call(self) -> None:
        # Both threads may come here at once: popping is one step, so one of them finds nothing.
        while self._callbacks:
            try:
                fn = self._callbacks.pop()
            except IndexError:
                return
            fn(self)
