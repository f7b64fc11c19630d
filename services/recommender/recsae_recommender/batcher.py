"""Natural micro-batching: one thread per model computes whatever is queued, and never waits for more.

A fixed window of 1 ms made the median of a lone request 2 to 3 ms; taking what is there costs nothing when the
server is idle and gains 1.3 to 3 times when it is not. Not here: what is computed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from recsae.errors import DeadlineExceededError, ResourceExhaustedError, UnavailableError
from recsae.rpc.deadline import Deadline

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True)
class _Job(Generic[Q, R]):
    request: Q
    deadline: Deadline
    outcome: Future[R] = field(default_factory=Future)


class Batcher(Generic[Q, R]):
    """A bounded queue in front of one model's compute thread."""

    def __init__(
        self,
        compute: Callable[[Sequence[Q]], Sequence[R]],
        *,
        name: str,
        max_batch: int,
        max_queue: int,
        on_batch: Callable[[int], None] = lambda _size: None,
    ) -> None:
        """`compute` maps requests to results in the same order; `on_batch` is told each batch's size."""
        self._compute = compute
        self._name = name
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._on_batch = on_batch
        self._queue: deque[_Job[Q, R]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"recsae-model-{name}", daemon=True)
        self._thread.start()

    def submit(self, request: Q, deadline: Deadline) -> R:
        """Computes one request with its neighbours; blocks until it is done.

        ResourceExhaustedError when the queue is full, DeadlineExceededError when time ran out, UnavailableError
        when the batcher was closed; else whatever `compute` raised for this request.
        """
        job: _Job[Q, R] = _Job(request, deadline)
        with self._changed:
            if self._closed:
                raise UnavailableError(f"model {self._name} is shutting down; call another replica")
            if len(self._queue) >= self._max_queue:
                raise ResourceExhaustedError(
                    f"{len(self._queue)} requests wait for model {self._name}, the most allowed; "
                    "retry with a back-off or add replicas"
                )
            self._queue.append(job)
            self._changed.notify()
        try:
            return job.outcome.result(deadline.remaining())
        except FutureTimeoutError:
            job.outcome.cancel()
            raise _too_late(self._name) from None

    def close(self) -> None:
        """Refuses new requests, finishes those queued, ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while (jobs := self._take()) is not None:
            live = [job for job in jobs if self._is_wanted(job)]
            if live:
                self._on_batch(len(live))
                self._serve(live)

    def _take(self) -> list[_Job[Q, R]] | None:
        """Everything queued up to the largest batch; None once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue) or self._closed)
            if not self._queue:
                return None
            return [self._queue.popleft() for _ in range(min(len(self._queue), self._max_batch))]

    def _is_wanted(self, job: _Job[Q, R]) -> bool:
        if not job.outcome.set_running_or_notify_cancel():
            return False
        if job.deadline.expired:
            job.outcome.set_exception(_too_late(self._name))
            return False
        return True

    def _serve(self, jobs: list[_Job[Q, R]]) -> None:
        try:
            results = self._compute([job.request for job in jobs])
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].outcome.set_exception(error)
                return
            # One bad request must not fail its neighbours: compute each alone.
            for job in jobs:
                self._serve([job])
            return
        for job, result in zip(jobs, results, strict=True):
            job.outcome.set_result(result)


def _too_late(name: str) -> DeadlineExceededError:
    return DeadlineExceededError(f"time ran out while the request waited for model {name}; give it a longer deadline")
