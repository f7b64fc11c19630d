"""The batcher takes what is queued, never waits for more, bounds its queue and honours deadlines."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from recsae.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ResourceExhaustedError,
    UnavailableError,
)
from recsae.rpc.deadline import Deadline
from recsae_recommender.batcher import Batcher

SOON = Deadline.after


class Gate:
    """A compute function that holds its first batch until told, and remembers every batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, requests: Sequence[int]) -> list[int]:
        self.batches.append(list(requests))
        self.entered.set()
        assert self.open.wait(10)
        if 13 in requests:
            raise InvalidRequestError("13 is refused")
        return [request * 10 for request in requests]


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


def make(gate: Gate, max_batch: int = 8, max_queue: int = 8) -> Batcher[int, int]:
    return Batcher(gate, name="m", max_batch=max_batch, max_queue=max_queue)


def queued(batcher: Batcher[int, int], count: int) -> None:
    """Waits until `count` requests are in the queue."""
    with batcher._changed:
        assert batcher._changed.wait_for(lambda: len(batcher._queue) == count, 10)


def submit_in_order(pool: ThreadPoolExecutor, batcher: Batcher[int, int], requests: Sequence[int]) -> list[Future[int]]:
    futures = []
    for place, request in enumerate(requests, start=1):
        futures.append(pool.submit(batcher.submit, request, SOON(10)))
        queued(batcher, place)
    return futures


def test_lone_request_is_computed_at_once(gate: Gate) -> None:
    gate.open.set()
    assert make(gate).submit(4, SOON(10)) == 40
    assert gate.batches == [[4]]


def test_requests_that_queued_meanwhile_are_computed_together_in_order(gate: Gate) -> None:
    batcher = make(gate)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.submit, 1, SOON(10))
        assert gate.entered.wait(10)
        rest = submit_in_order(pool, batcher, [2, 3, 4])
        gate.open.set()
        assert [future.result() for future in (first, *rest)] == [10, 20, 30, 40]
    assert gate.batches == [[1], [2, 3, 4]]


def test_batches_are_no_larger_than_allowed(gate: Gate) -> None:
    batcher = make(gate, max_batch=2)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.submit, 1, SOON(10))
        assert gate.entered.wait(10)
        rest = submit_in_order(pool, batcher, [2, 3, 4])
        gate.open.set()
        assert [future.result() for future in (first, *rest)] == [10, 20, 30, 40]
    assert gate.batches == [[1], [2, 3], [4]]


def test_full_queue_refuses_at_once(gate: Gate) -> None:
    batcher = make(gate, max_queue=2)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.submit, 1, SOON(10))
        assert gate.entered.wait(10)
        rest = submit_in_order(pool, batcher, [2, 3])
        with pytest.raises(ResourceExhaustedError, match="2 requests wait for model m"):
            batcher.submit(4, SOON(10))
        gate.open.set()
        assert [future.result() for future in (first, *rest)] == [10, 20, 30]


def test_bad_request_fails_alone(gate: Gate) -> None:
    batcher = make(gate)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.submit, 1, SOON(10))
        assert gate.entered.wait(10)
        good, bad, other = submit_in_order(pool, batcher, [2, 13, 3])
        gate.open.set()
        assert [good.result(), other.result(), first.result()] == [20, 30, 10]
        with pytest.raises(InvalidRequestError, match="13 is refused"):
            bad.result()


def test_request_whose_time_ran_out_in_the_queue_is_never_computed(gate: Gate) -> None:
    batcher = make(gate)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.submit, 1, SOON(10))
        assert gate.entered.wait(10)
        with pytest.raises(DeadlineExceededError):
            batcher.submit(2, SOON(0.05))
        gate.open.set()
        first.result()
        assert batcher.submit(3, SOON(10)) == 30
    assert gate.batches == [[1], [3]]


def test_closing_finishes_what_is_queued_and_refuses_the_rest(gate: Gate) -> None:
    batcher = make(gate)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.submit, 1, SOON(10))
        assert gate.entered.wait(10)
        rest = submit_in_order(pool, batcher, [2])
        gate.open.set()
        batcher.close()
        assert [future.result() for future in (first, *rest)] == [10, 20]
        with pytest.raises(UnavailableError):
            batcher.submit(3, SOON(10))
