"""A server whose method runs in a batch lane: no caller holds up the others, and the lane outlives what calls do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import grpc
import pytest
from tests.integration.small_server import (
    SERVICE,
    Running,
    Steering,
    get,
    refused,
    silent_calls,
    small_servers,
    wait_until,
)

from recsae.rpc.batch_lane import BatchLane
from recsae.rpc.client import ClientOptions
from recsae.rpc.polling_lane import PollingLane
from recsae.rpc.request import require_request
from recsae.v1 import steering_pb2
from recsae_recommender.batcher import Batcher

PATH = f"/{SERVICE}/GetPolicy"
ONCE = ClientOptions(retries=False, timeout_s=10)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    with small_servers() as begin:
        yield begin


@pytest.mark.parametrize("kind", [BatchLane, PollingLane])
def test_request_that_never_comes_holds_up_no_other_call(start: Callable[..., Running], kind: type[BatchLane]) -> None:
    lane = kind("batch", most_held=10)
    running = start(lanes={"GetPolicy": lane})
    with silent_calls(running, PATH, 3):
        wait_until(lambda: lane.held == 3)
        assert running.stub(ONCE).GetPolicy(get("p"), timeout=5).policy.id == "p"
    assert lane.wait_idle(10), "a call that was cancelled before its message came has ended"


class Leaving(Steering):
    """Ends its thread, or would."""

    def GetPolicy(
        self, request: steering_pb2.GetPolicyRequest, context: grpc.ServicerContext
    ) -> steering_pb2.GetPolicyResponse:
        if request.policy_id == "exit":
            raise SystemExit(3)
        return super().GetPolicy(request, context)


@pytest.mark.parametrize("lanes", [("GetPolicy",), ()], ids=["batch lane", "thread pool"])
def test_call_that_exits_is_answered_and_the_next_one_too(start: Callable[..., Running], lanes: Sequence[str]) -> None:
    running = start(lanes={method: BatchLane("batch", most_held=10) for method in lanes}, servicer=Leaving())  # type: ignore[abstract]
    stub = running.stub(ONCE)
    assert refused(lambda: stub.GetPolicy(get("exit"), timeout=3))[0] is grpc.StatusCode.INTERNAL
    assert stub.GetPolicy(get("p"), timeout=3).policy.id == "p"


class Batched(Steering):
    """Answers with the request id of the call, after a batch with its neighbours."""

    def __init__(self, lane: BatchLane) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.batches: list[int] = []
        self.batcher: Batcher[str, str] = Batcher(self.compute, lane, name="m", max_batch=8, max_queue=64)

    def compute(self, requests: Sequence[str]) -> list[str]:
        self.batches.append(len(requests))
        assert self.gate.wait(10)
        if "exit" in requests:
            raise SystemExit(3)
        return list(requests)

    def GetPolicy(
        self, request: steering_pb2.GetPolicyRequest, context: grpc.ServicerContext
    ) -> steering_pb2.GetPolicyResponse:
        before, deadline = require_request(), require_request().deadline
        answer = self.batcher.submit(request.policy_id, deadline)
        assert require_request() is before
        return steering_pb2.GetPolicyResponse(policy=steering_pb2.Policy(id=answer, name=before.request_id))


@pytest.fixture
def batched(start: Callable[..., Running]) -> Iterator[tuple[Running, Batched, BatchLane]]:
    lane = BatchLane("batch", most_held=100)
    servicer = Batched(lane)  # type: ignore[abstract]
    yield start(lanes={"GetPolicy": lane}, servicer=servicer), servicer, lane
    servicer.gate.set()


def test_calls_that_wait_together_keep_their_own_request(batched: tuple[Running, Batched, BatchLane]) -> None:
    running, servicer, lane = batched
    stub = running.stub(ONCE)
    calls = [
        stub.GetPolicy.future(get(f"p{one}"), timeout=10, metadata=(("x-request-id", f"req-{one}"),))
        for one in range(20)
    ]
    wait_until(lambda: lane.held == 20)
    servicer.gate.set()
    found = [call.result(10).policy for call in calls]
    assert [(one.id, one.name) for one in found] == [(f"p{one}", f"req-{one}") for one in range(20)]
    assert max(servicer.batches) > 1


@pytest.mark.parametrize("kind", [BatchLane, PollingLane])
def test_batch_that_exits_is_answered_and_its_neighbours_are_computed(
    start: Callable[..., Running], kind: type[BatchLane]
) -> None:
    lane = kind("batch", most_held=100)
    servicer = Batched(lane)  # type: ignore[abstract]
    servicer.gate.set()
    stub = start(lanes={"GetPolicy": lane}, servicer=servicer).stub(ONCE)
    calls = {name: stub.GetPolicy.future(get(name), timeout=10) for name in ("first", "exit", "other")}
    code, _ = refused(lambda: calls["exit"].result(10))
    assert code is grpc.StatusCode.INTERNAL
    assert [calls[name].result(10).policy.id for name in ("first", "other")] == ["first", "other"]
    assert stub.GetPolicy(get("next"), timeout=10).policy.id == "next"


def test_call_cancelled_while_it_waits_leaves_the_lane_to_the_others(
    batched: tuple[Running, Batched, BatchLane],
) -> None:
    running, servicer, lane = batched
    stub = running.stub(ONCE)
    cancelled, kept = (stub.GetPolicy.future(get(name), timeout=10) for name in ("cancelled", "kept"))
    wait_until(lambda: lane.held == 2)
    cancelled.cancel()
    servicer.gate.set()
    assert kept.result(10).policy.id == "kept"
    assert lane.wait_idle(10)


def test_drain_ends_calls_that_wait_for_their_batch_with_their_answers(
    batched: tuple[Running, Batched, BatchLane],
) -> None:
    running, servicer, lane = batched
    stub = running.stub(ONCE)
    calls = [stub.GetPolicy.future(get(f"p{one}"), timeout=10) for one in range(5)]
    wait_until(lambda: lane.held == 5)
    drained = threading.Thread(target=running.server.drain)
    drained.start()
    assert running.server.draining.wait(10)
    servicer.gate.set()
    assert [call.result(10).policy.id for call in calls] == [f"p{one}" for one in range(5)]
    drained.join(10)
    assert not drained.is_alive()


@pytest.mark.parametrize("kind", [BatchLane, PollingLane])
def test_calls_that_the_end_of_the_server_cut_off_are_held_no_longer(
    start: Callable[..., Running], kind: type[BatchLane]
) -> None:
    lane = kind("batch", most_held=10)
    running = start(lanes={"GetPolicy": lane}, drain_grace_s=0.2)
    with silent_calls(running, PATH, 3):
        wait_until(lambda: lane.held == 3)
        running.server.drain()
        assert lane.wait_idle(5)
