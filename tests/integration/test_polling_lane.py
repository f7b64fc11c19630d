"""Calls run in grpcio's polling thread: parked for message and batch, cancelled, failed, drained, beside others."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import pytest
from tests.integration.small_server import SERVICE, get, small_servers, wait_until

from recsae.errors import NotFoundError
from recsae.rpc import polling_lane
from recsae.rpc.client import channel
from recsae.rpc.deadline import Deadline
from recsae.rpc.polling_lane import PollingLane, serves_polling, start_polling
from recsae.rpc.request import require_request
from recsae.rpc.server import RpcServer, build_server
from recsae.rpc.settings import ServiceSettings
from recsae.telemetry.metrics import RpcMetrics, new_registry
from recsae.v1 import steering_pb2, steering_pb2_grpc
from recsae_recommender.batcher import Batcher


class Batched(steering_pb2_grpc.SteeringServicer):
    """`GetPolicy` is computed in batches; the first batch waits until `open`."""

    def __init__(self, lane: PollingLane) -> None:
        self.batches: list[list[str]] = []
        self.entered, self.open = threading.Event(), threading.Event()
        self.batcher: Batcher[str, str] = Batcher(self.compute, lane, name="m", max_batch=64, max_queue=64)

    def compute(self, requests: Sequence[str]) -> list[str]:
        self.batches.append(list(requests))
        self.entered.set()
        assert self.open.wait(10)
        return [request.upper() for request in requests]

    def GetPolicy(
        self, request: steering_pb2.GetPolicyRequest, context: grpc.ServicerContext
    ) -> steering_pb2.GetPolicyResponse:
        if request.policy_id == "missing":
            raise NotFoundError("no policy 'missing'; list them first")
        answer = self.batcher.submit(request.policy_id, Deadline())
        return steering_pb2.GetPolicyResponse(policy=steering_pb2.Policy(id=answer, name=require_request().request_id))


class Running:
    """A server whose `GetPolicy` runs in a polling lane, and a client."""

    def __init__(self, **values: Any) -> None:
        self.lane = PollingLane("test", most_held=values.pop("most_held", 100))
        self.servicer = Batched(self.lane)  # type: ignore[abstract]  # the methods left out answer UNIMPLEMENTED
        settings = ServiceSettings(drain_probe_s=0, drain_grace_s=5, **values)
        self.server: RpcServer = build_server(settings, RpcMetrics(new_registry()))
        add = steering_pb2_grpc.add_SteeringServicer_to_server
        self.server.add(add, self.servicer, SERVICE, lanes={"GetPolicy": self.lane})
        self.server.start(partial(start_polling, lane=self.lane))
        self.server.mark_ready()
        self.channel = channel(f"127.0.0.1:{self.server.port}")
        self.stub = steering_pb2_grpc.SteeringStub(self.channel)

    def held_batch(self) -> Any:
        """A call whose batch is being computed, so that what comes now has to wait."""
        first = self.stub.GetPolicy.future(get("first"), timeout=10)
        assert self.servicer.entered.wait(10)
        return first


@contextmanager
def running(**values: Any) -> Iterator[Running]:
    made = Running(**values)
    try:
        yield made
    finally:
        made.servicer.open.set()
        made.channel.close()
        made.server.drain()


def test_the_locked_grpcio_is_one_whose_internals_are_known() -> None:
    assert serves_polling()


def test_another_grpcio_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "__version__", "1.99.0")
    assert not serves_polling()


def test_calls_that_came_meanwhile_are_one_batch_each_with_its_own_answer_and_request_id() -> None:
    with running() as at:
        first = at.held_batch()
        waiting = {
            name: at.stub.GetPolicy.future(get(name), metadata=(("x-request-id", f"req-{name}"),), timeout=10)
            for name in ("a", "b", "c")
        }
        at.servicer.open.set()
        assert first.result().policy.id == "FIRST"
        for name, call in waiting.items():
            assert (call.result().policy.id, call.result().policy.name) == (name.upper(), f"req-{name}")
            assert dict(call.trailing_metadata())["x-request-id"] == f"req-{name}"
    assert sum(len(batch) for batch in at.servicer.batches) == 1 + len(waiting)
    assert len(at.servicer.batches) < 1 + len(waiting)


def test_many_clients_at_once_each_get_their_own() -> None:
    with running(most_held=1000) as at, ThreadPoolExecutor(16) as pool:
        at.servicer.open.set()
        names = [f"n{number}" for number in range(400)]
        answers = pool.map(lambda name: at.stub.GetPolicy(get(name), timeout=10).policy.id, names)
        assert list(answers) == [name.upper() for name in names]
        wait_until(lambda: at.lane.held == 0)


def test_an_error_is_its_status_and_costs_nobody_else_anything() -> None:
    with running() as at:
        at.servicer.open.set()
        with pytest.raises(grpc.RpcError) as caught:
            at.stub.GetPolicy(get("missing"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert at.stub.GetPolicy(get("a"), timeout=10).policy.id == "A"
        wait_until(lambda: at.lane.held == 0)


def test_a_call_cancelled_while_it_waits_for_its_batch_is_let_go() -> None:
    with running() as at:
        first = at.held_batch()
        gone = at.stub.GetPolicy.future(get("gone"), timeout=10)
        gone.cancel()
        at.servicer.open.set()
        assert first.result().policy.id == "FIRST"
        wait_until(lambda: at.lane.held == 0)
        assert at.stub.GetPolicy(get("after"), timeout=10).policy.id == "AFTER"


def test_a_call_that_never_sends_its_message_holds_up_nobody_and_ends_with_its_deadline() -> None:
    with running() as at:
        at.servicer.open.set()
        silent = threading.Event()
        opened: Any = at.channel.stream_unary(f"/{SERVICE}/GetPolicy")

        def nothing() -> Iterator[bytes]:
            silent.wait(10)
            yield from ()

        call = opened.future(nothing(), timeout=0.5)
        assert at.stub.GetPolicy(get("a"), timeout=10).policy.id == "A"
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        silent.set()
        wait_until(lambda: at.lane.held == 0)


def test_a_full_lane_refuses_at_once() -> None:
    with running(most_held=0) as at:
        with pytest.raises(grpc.RpcError) as caught:
            at.stub.GetPolicy(get("a"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_drain_answers_what_waits() -> None:
    with running() as at:
        first = at.held_batch()
        waiting = at.stub.GetPolicy.future(get("waiting"), timeout=10)
        wait_until(lambda: waiting.running())
        draining = threading.Thread(target=at.server.drain)
        draining.start()
        assert at.server.draining.wait(10)
        at.servicer.open.set()
        assert first.result().policy.id == "FIRST"
        draining.join(10)
        assert not draining.is_alive()


def test_another_server_of_the_process_polls_as_grpcio_does() -> None:
    from grpc import _server

    internals: Any = _server
    with running() as at, small_servers() as start:
        at.servicer.open.set()
        assert internals._serve.__module__ == "grpc._server"
        plain = start()
        assert plain.stub().GetPolicy(get("p"), timeout=10).policy.id == "p"
        assert at.stub.GetPolicy(get("a"), timeout=10).policy.id == "A"


def test_a_flood_of_calls_does_not_hold_up_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling_lane, "_EVENTS_AT_ONCE", 1)
    with running() as at, ThreadPoolExecutor(8) as pool:
        at.servicer.open.set()
        answers = list(pool.map(lambda n: at.stub.GetPolicy(get(f"n{n}"), timeout=10).policy.id, range(100)))
        assert answers == [f"N{n}" for n in range(100)]
