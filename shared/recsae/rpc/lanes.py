"""Thread pools a server's calls run in, and their bounds: load is shed before it queues.

Three lanes, because `maximum_concurrent_rpcs` would shed health checks too and as many open streams as threads
would starve every unary call: unary calls, streams, and an express lane for health checks and refusals. A lane
counts what was submitted and has not ended, by the futures of the pool itself, so a call cancelled before it ran
never leaks a place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, Protocol, TypeVar

from recsae.errors import ResourceExhaustedError

P = ParamSpec("P")
T = TypeVar("T")

# Begun as they are needed, which is one or two; the rest are for health checks whose message is long in coming.
_EXPRESS_THREADS = 64


class Lane(ThreadPoolExecutor):
    """A thread pool that knows how many calls it holds and the most it should."""

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        """Runs `threads` calls at once; `waiting` more may queue."""
        super().__init__(max_workers=threads, thread_name_prefix=f"recsae-{name}")
        self.name = name
        self.capacity = threads + waiting
        self._held = 0
        self._changed = threading.Condition()

    @property
    def held(self) -> int:
        """Calls running or waiting."""
        return self._held

    def check_room(self) -> None:
        """ResourceExhaustedError when the lane is full."""
        if self._held >= self.capacity:
            raise no_room(self.name, self._held, self.capacity)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As ThreadPoolExecutor; the call is held until its future is done."""
        with self._changed:
            self._held += 1
        try:
            future = super().submit(fn, *args, **kwargs)
        except BaseException:
            self._release()
            raise
        future.add_done_callback(lambda _future: self._release())
        return future

    def wait_idle(self, timeout_s: float) -> bool:
        """True once no call is held; False when that took longer than `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._held == 0, timeout_s)

    def _release(self) -> None:
        with self._changed:
            self._held -= 1
            self._changed.notify_all()


class AnyLane(Protocol):
    """What a server asks of a lane besides running calls."""

    def check_room(self) -> None:
        """ResourceExhaustedError when the lane is full."""

    def wait_idle(self, timeout_s: float) -> bool:
        """True once no call is held; False when that took longer than `timeout_s`."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls."""


def no_room(name: str, held: int, most: int) -> ResourceExhaustedError:
    """The error of a full lane."""
    return ResourceExhaustedError(
        f"{held} {name} calls are held, the most is {most}; retry with a back-off or add replicas"
    )


class Lanes:
    """The lanes of a server: three for everything, and those that single methods were given."""

    def __init__(self, *, unary_threads: int, unary_waiting: int, streams: int) -> None:
        """`streams` is both the threads for streams and the most that may be open."""
        self.unary = Lane("unary", threads=unary_threads, waiting=unary_waiting)
        self.streams = Lane("stream", threads=streams, waiting=0)
        self.express = Lane("express", threads=_EXPRESS_THREADS, waiting=1_000_000)
        self.of_method: dict[str, AnyLane] = {}
        """Lanes of single methods, by their full names."""

    def choose(self, method: str, *, streaming: bool) -> AnyLane:
        """The lane of a method's calls."""
        return self.of_method.get(method) or (self.streams if streaming else self.unary)

    def wait_idle(self, timeout_s: float) -> bool:
        """True once no call is held but in the express lane; False when that took longer than `timeout_s` a lane."""
        return all(lane.wait_idle(timeout_s) for lane in (self.unary, self.streams, *self._own()))

    def close(self) -> None:
        """Takes no more calls; does not wait for those running."""
        for lane in (self.unary, self.streams, self.express, *self._own()):
            lane.shutdown(wait=False, cancel_futures=True)

    def _own(self) -> list[AnyLane]:
        return list({id(lane): lane for lane in self.of_method.values()}.values())
