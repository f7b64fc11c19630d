"""The batcher takes what is queued, never waits for more, bounds its queue, honours deadlines, and holds no thread."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import pytest

from recsae.errors import DeadlineExceededError, InvalidRequestError, ResourceExhaustedError, UnavailableError
from recsae.rpc.batch_lane import BatchLane
from recsae.rpc.deadline import Deadline
from recsae.rpc.request import RequestInfo, enter_request, leave_request, require_request
from recsae_recommender.batcher import Batcher

SOON = Deadline.after


class Computation:
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
def computation() -> Iterator[Computation]:
    made = Computation()
    yield made
    made.open.set()


@pytest.fixture
def lane() -> Iterator[BatchLane]:
    made = BatchLane("test", most_held=100).start()
    yield made
    made.shutdown()


def call(lane: BatchLane, fn: Callable[[], int]) -> Future[int]:
    """What a call in the lane came to."""
    outcome: Future[int] = Future()

    def run() -> None:
        try:
            outcome.set_result(fn())
        except Exception as error:
            outcome.set_exception(error)

    lane.submit(run)
    return outcome


def ask(lane: BatchLane, batcher: Batcher[int, int], request: int, deadline: Deadline | None = None) -> Future[int]:
    return call(lane, lambda: batcher.submit(request, deadline or SOON(10)))


def make(computation: Computation, lane: BatchLane, max_batch: int = 8, max_queue: int = 8) -> Batcher[int, int]:
    return Batcher(computation, lane, name="m", max_batch=max_batch, max_queue=max_queue)


def held(computation: Computation, lane: BatchLane, batcher: Batcher[int, int]) -> Future[int]:
    """The first request, in a batch that is being computed."""
    first = ask(lane, batcher, 1)
    assert computation.entered.wait(10)
    return first


def test_lone_request_is_computed_at_once(computation: Computation, lane: BatchLane) -> None:
    computation.open.set()
    assert ask(lane, make(computation, lane), 4).result(10) == 40
    assert computation.batches == [[4]]


def test_requests_that_queued_meanwhile_are_computed_together_in_order(
    computation: Computation, lane: BatchLane
) -> None:
    batcher = make(computation, lane)
    first = held(computation, lane, batcher)
    rest = [ask(lane, batcher, request) for request in (2, 3, 4)]
    computation.open.set()
    assert [one.result(10) for one in (first, *rest)] == [10, 20, 30, 40]
    assert computation.batches == [[1], [2, 3, 4]]


def test_batches_are_no_larger_than_allowed(computation: Computation, lane: BatchLane) -> None:
    batcher = make(computation, lane, max_batch=2)
    first = held(computation, lane, batcher)
    rest = [ask(lane, batcher, request) for request in (2, 3, 4)]
    computation.open.set()
    assert [one.result(10) for one in (first, *rest)] == [10, 20, 30, 40]
    assert computation.batches == [[1], [2, 3], [4]]


def test_full_queue_refuses_and_serves_those_in_it(computation: Computation, lane: BatchLane) -> None:
    batcher = make(computation, lane, max_queue=2)
    first = held(computation, lane, batcher)
    rest = [ask(lane, batcher, request) for request in (2, 3)]
    refused = ask(lane, batcher, 4)
    computation.open.set()
    with pytest.raises(ResourceExhaustedError, match="2 requests wait for model m"):
        refused.result(10)
    assert [one.result(10) for one in (first, *rest)] == [10, 20, 30]


def test_full_lane_says_so_before_a_call_is_taken(computation: Computation) -> None:
    lane = BatchLane("small", most_held=1).start()
    first = held(computation, lane, make(computation, lane))
    with pytest.raises(ResourceExhaustedError, match="1 small calls are held, the most is 1"):
        lane.check_room()
    computation.open.set()
    first.result(10)
    assert lane.wait_idle(10)
    lane.check_room()
    lane.shutdown()


def test_bad_request_fails_alone(computation: Computation, lane: BatchLane) -> None:
    batcher = make(computation, lane)
    first = held(computation, lane, batcher)
    good, bad, other = (ask(lane, batcher, request) for request in (2, 13, 3))
    computation.open.set()
    assert [good.result(10), other.result(10), first.result(10)] == [20, 30, 10]
    with pytest.raises(InvalidRequestError, match="13 is refused"):
        bad.result(10)


def test_request_whose_time_ran_out_in_the_queue_is_never_computed(computation: Computation, lane: BatchLane) -> None:
    batcher = make(computation, lane)
    first = held(computation, lane, batcher)
    late = ask(lane, batcher, 2, Deadline(at=0.0))
    computation.open.set()
    with pytest.raises(DeadlineExceededError):
        late.result(10)
    first.result(10)
    assert ask(lane, batcher, 3).result(10) == 30
    assert computation.batches == [[1], [3]]


def test_closing_finishes_what_is_queued_and_refuses_the_rest(computation: Computation, lane: BatchLane) -> None:
    batcher = make(computation, lane)
    first = held(computation, lane, batcher)
    waiting = ask(lane, batcher, 2)
    assert lane.held == 2
    closing = call(lane, lambda: batcher.close() or 0)  # type: ignore[func-returns-value]
    late = ask(lane, batcher, 3)
    computation.open.set()
    assert [one.result(10) for one in (first, waiting, closing)] == [10, 20, 0]
    with pytest.raises(UnavailableError):
        late.result(10)


def test_two_models_take_turns(computation: Computation, lane: BatchLane) -> None:
    one, other = make(computation, lane, max_batch=1), make(computation, lane, max_batch=1)
    first = held(computation, lane, one)
    rest = [ask(lane, batcher, request) for batcher, request in ((one, 2), (one, 3), (other, 4))]
    computation.open.set()
    assert [found.result(10) for found in (first, *rest)] == [10, 20, 30, 40]
    assert computation.batches.index([4]) < computation.batches.index([3])


def test_work_aside_holds_no_other_call(lane: BatchLane) -> None:
    answer = threading.Event()

    def slow() -> int:
        assert answer.wait(10)
        return 5

    waiting = call(lane, lambda: lane.aside(slow))
    assert call(lane, lambda: 7).result(10) == 7
    assert not waiting.done()
    answer.set()
    assert waiting.result(10) == 5


def test_error_aside_is_the_callers(lane: BatchLane) -> None:
    with pytest.raises(ZeroDivisionError):
        call(lane, lambda: lane.aside(lambda: 1 // 0)).result(10)


def test_outside_of_the_lane_a_request_is_computed_alone(computation: Computation, lane: BatchLane) -> None:
    computation.open.set()
    assert make(computation, lane).submit(6, SOON(10)) == 60
    assert lane.aside(lambda: 8) == 8


def test_batch_with_too_few_results_fails_its_requests_and_the_next_is_computed(lane: BatchLane) -> None:
    batcher: Batcher[int, int] = Batcher(lambda _requests: [], lane, name="m", max_batch=8, max_queue=8)
    with pytest.raises(ValueError, match="zip"):
        ask(lane, batcher, 2).result(10)
    assert call(lane, lambda: 7).result(10) == 7


def test_lane_survives_what_listens_to_its_batches(lane: BatchLane) -> None:
    def fail(size: int) -> None:
        raise KeyError(size)

    batcher: Batcher[int, int] = Batcher(
        lambda numbers: [-number for number in numbers], lane, name="m", max_batch=8, max_queue=8, on_batch=fail
    )
    assert [ask(lane, batcher, request).result(10) for request in (2, 3)] == [-2, -3]


def test_call_that_exits_ends_neither_the_lane_nor_its_count(lane: BatchLane) -> None:
    ended = threading.Event()
    lane.submit(sys.exit).add_done_callback(lambda _ended: ended.set())
    assert ended.wait(10)
    assert call(lane, lambda: 7).result(10) == 7
    assert lane.wait_idle(10)


def test_lane_that_was_shut_down_takes_no_call() -> None:
    made = BatchLane("test", most_held=1).start()
    made.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        made.submit(int)
    assert made.held == 0


def test_work_aside_knows_the_request_it_is_done_for(lane: BatchLane) -> None:
    def of_a_request() -> int:
        token = enter_request(RequestInfo("req-7"))
        try:
            return int(lane.aside(lambda: require_request().request_id == "req-7"))
        finally:
            leave_request(token)

    assert call(lane, lambda: contextvars.Context().run(of_a_request)).result(10) == 1


@pytest.mark.parametrize("added", ["before", "after"])
def test_end_of_a_call_is_told_whenever_the_callback_comes(lane: BatchLane, added: str) -> None:
    started, told = threading.Event(), threading.Event()
    future = lane.submit(started.wait, 10)
    if added == "after":
        started.set()
        assert lane.wait_idle(10)
    future.add_done_callback(lambda _ended: told.set())
    started.set()
    assert told.wait(10)
