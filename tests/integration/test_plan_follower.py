"""A recommender's follower: what it does with a stream beside an encoder that does not come."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from recsae.pipeline.triples import Triple
from recsae.steering.delta import Steerer
from recsae.steering.follower import PlanFollower
from recsae.steering.matching import SteerContext
from recsae.steering.plans import Plan, PlanOperation, PlanPolicy, PlanSet
from recsae.steering.policies import OperationKind, Scope, Window
from recsae.steering.receipts import PolicyRef, UnsteeredReason
from recsae.steering.wire_plans import plan_set_message
from recsae.v1 import steering_pb2, steering_pb2_grpc

MODEL, VERSION = "tiny", "0" * 16
SLOW_S = 0.3


class SlowEncoder(steering_pb2_grpc.SteeringServicer):
    """Streams what is put into `events`, or `always` and no more; the encoder is refused after `SLOW_S`."""

    def __init__(self) -> None:
        self.events: queue.Queue[steering_pb2.WatchPlansResponse | None] = queue.Queue()
        self.asked = threading.Event()
        self.joined = threading.Semaphore(0)
        self.always: steering_pb2.WatchPlansResponse | None = None
        self._never = threading.Event()

    def WatchPlans(
        self, request: steering_pb2.WatchPlansRequest, context: grpc.ServicerContext
    ) -> Iterator[steering_pb2.WatchPlansResponse]:
        self.joined.release()
        if self.always is not None:
            yield self.always
            return
        while (event := self.events.get()) is not None:
            yield event

    def GetEncoder(
        self, request: steering_pb2.GetEncoderRequest, context: grpc.ServicerContext
    ) -> steering_pb2.GetEncoderResponse:
        self.asked.set()
        self._never.wait(SLOW_S)
        context.abort(grpc.StatusCode.INTERNAL, "no encoder")


@pytest.fixture
def interpreter() -> Iterator[tuple[SlowEncoder, grpc.Channel]]:
    servicer = SlowEncoder()  # type: ignore[abstract]  # what it leaves out is refused, as meant
    server = grpc.server(ThreadPoolExecutor(4))
    steering_pb2_grpc.add_SteeringServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield servicer, channel
    servicer.events.put(None)
    server.stop(None).wait()


def plans(revision: int, *policies: PlanPolicy) -> steering_pb2.WatchPlansResponse:
    plan = Plan(revision, MODEL, Triple(VERSION, "1" * 16, "2" * 16), policies, 2, "sequence", 0.0)
    return steering_pb2.WatchPlansResponse(plans=plan_set_message(PlanSet(revision, (plan,))))


def test_a_change_does_not_queue_behind_heartbeats_while_the_encoder_does_not_come(
    interpreter: tuple[SlowEncoder, grpc.Channel],
) -> None:
    servicer, channel = interpreter
    ablation = PlanOperation(0, OperationKind.ABLATE, 0.0, np.array([1, 0], np.float32))
    policy = PlanPolicy(PolicyRef("p-1", 1), (ablation,), Scope(), Window(), "salt")
    heartbeat = steering_pb2.WatchPlansResponse(heartbeat=steering_pb2.PlanHeartbeat(revision=1))
    follower = PlanFollower(channel, MODEL, VERSION, watcher="test").start()
    try:
        servicer.events.put(plans(1, policy))
        assert servicer.asked.wait(10)
        for event in (*[heartbeat] * 20, plans(2)):
            servicer.events.put(event)
        # Twenty heartbeats that each waited for the encoder would take twenty times as long.
        assert follower.wait_for_revision(2, 10 * SLOW_S)
    finally:
        follower.close()


def test_without_onnxruntime_plans_that_add_are_applied_and_others_say_once_what_to_install(
    interpreter: tuple[SlowEncoder, grpc.Channel], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "recsae.steering.encoder", None)
    servicer, channel = interpreter
    row, x = np.array([1, 0], np.float32), np.ones((1, 2), np.float32)
    adding, ablating = (
        PlanPolicy(PolicyRef(kind, 1), (PlanOperation(0, kind, 0.5, row),), Scope(), Window(), "salt")
        for kind in (OperationKind.ADD, OperationKind.ABLATE)
    )
    heartbeat = steering_pb2.WatchPlansResponse(heartbeat=steering_pb2.PlanHeartbeat(revision=2))
    follower = PlanFollower(channel, MODEL, VERSION, watcher="test").start()
    try:
        for revision, policy, reason in ((1, adding, UnsteeredReason.STEERED), (2, ablating, UnsteeredReason.ERROR)):
            servicer.events.put(plans(revision, policy))
            assert follower.wait_for_revision(revision, 10)
            steerer = follower.current()
            assert isinstance(steerer, Steerer)
            assert steerer.steer(x, [SteerContext()], 0.0).receipts[0].reason is reason
        for event in (heartbeat, heartbeat, heartbeat, plans(3)):
            servicer.events.put(event)
        assert follower.wait_for_revision(3, 10)
    finally:
        follower.close()
    assert not servicer.asked.is_set()
    assert capsys.readouterr().out.count("plan_encoder_missing") == 1


def damaged(revision: int) -> steering_pb2.WatchPlansResponse:
    message = plans(revision, PlanPolicy(PolicyRef("p-1", 1), (ADDING,), Scope(), Window(), "salt"))
    message.plans.plans[0].norm_budget = -1.0
    return message


ADDING = PlanOperation(0, OperationKind.ADD, 0.5, np.array([1, 0], np.float32))


def test_a_refused_plan_of_the_revision_held_is_asked_for_again_at_once_and_counted(
    interpreter: tuple[SlowEncoder, grpc.Channel],
) -> None:
    servicer, channel = interpreter
    rejected, changed = threading.Semaphore(0), threading.Semaphore(0)
    follower = PlanFollower(
        channel, MODEL, VERSION, watcher="test", on_rejected=rejected.release, on_change=changed.release
    ).start()
    try:
        assert servicer.joined.acquire(timeout=10)
        servicer.events.put(plans(1))
        assert changed.acquire(timeout=10)
        servicer.events.put(damaged(1))
        assert rejected.acquire(timeout=10)
        steerer = follower.current()
        assert isinstance(steerer, Steerer)
        assert not steerer.plan.policies, "the last good plan stays"
        # No heartbeat in between: the stream it was refused on is given up, and the next one's snapshot is taken.
        assert servicer.joined.acquire(timeout=10)
        policy = PlanPolicy(PolicyRef("p-1", 1), (ADDING,), Scope(), Window(), "salt")
        for _ in range(3):  # the stream given up may still take one
            servicer.events.put(plans(1, policy))
        assert changed.acquire(timeout=10)
        steerer = follower.current()
        assert isinstance(steerer, Steerer)
        assert len(steerer.plan.policies) == 1
    finally:
        follower.close()


def test_a_plan_that_is_refused_again_and_again_is_asked_for_ever_more_slowly(
    interpreter: tuple[SlowEncoder, grpc.Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    servicer, channel = interpreter
    ceilings: queue.Queue[float] = queue.Queue()

    def at_once(_low: float, high: float) -> float:
        ceilings.put(high)
        return 0.0

    monkeypatch.setattr("recsae.steering.follower.random.uniform", at_once)
    servicer.always = damaged(1)
    follower = PlanFollower(channel, MODEL, VERSION, watcher="test").start()
    try:
        assert [ceilings.get(timeout=10) for _ in range(4)] == pytest.approx([0.2, 0.4, 0.8, 1.6])
    finally:
        follower.close()
