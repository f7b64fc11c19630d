"""The kit's way through a real interpreter: export, Steer, Rank, with a live policy and without."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from recsae.conformance.outcomes import Outcome, Verdict
from recsae.conformance.over_grpc import GrpcService
from recsae.conformance.suite import run
from recsae.rpc.client import channel
from recsae.steering.policies import Window
from recsae.steering.wire import window_message
from recsae.v1 import steering_pb2

Start = Callable[..., Any]
STEERING = ("steering.receipts", "steering.unsteered", "steering.ranked")


def test_activations_come_back_bit_for_bit_without_a_policy_and_moved_with_one(
    start_interpreter: Start,
    start_recommender: Start,
    stubs: Start,
    promote: Start,
    swapped: Start,
) -> None:
    promote(0)
    interpreter = start_interpreter()
    served = stubs(interpreter.server.port)
    swapped(served, 0)
    addresses = [f"127.0.0.1:{app.server.port}" for app in (start_recommender(), interpreter)]
    before = steered(*addresses)
    assert {name: before[name].verdict for name in STEERING} == dict.fromkeys(STEERING, Verdict.PASSED)
    assert before["steering.unsteered"].note.startswith("0 of ")

    operation = steering_pb2.Operation(concept_id="c-0-3", kind=steering_pb2.OPERATION_KIND_ADD, value=2.0)
    policy = steering_pb2.Policy(
        name="test", model="tiny", operations=[operation], window=window_message(Window(end=time.time() + 600))
    )
    served.steering.CreatePolicy(steering_pb2.CreatePolicyRequest(policy=policy, reason="a test"), timeout=10)
    after = steered(*addresses)
    assert {name: after[name].verdict for name in STEERING} == dict.fromkeys(STEERING, Verdict.PASSED)
    assert not after["steering.unsteered"].note.startswith("0 of ")
    assert not after["steering.ranked"].note.startswith("0 of ")


def steered(recommender: str, interpreter: str) -> dict[str, Outcome]:
    """Outcomes of the kit by check."""
    with channel(recommender) as tested, channel(interpreter) as steers:
        return {one.check.name: one for one in run(GrpcService(tested, steers))}
