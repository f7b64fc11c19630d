"""Policies made and deleted at the interpreter, and how long after each answer every replica acts on it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.propagation.fleet import Fleet
from benchmarks.propagation.traffic import Seen, Traffic
from benchmarks.propagation.triple import CONCEPT, MODEL
from recsae.rpc.client import channel
from recsae.steering.policies import Window
from recsae.steering.wire import window_message
from recsae.v1 import steering_pb2, steering_pb2_grpc

_CALL_S, _LONGEST_S = 10.0, 20.0
_DAY_S = 86_400.0


@dataclass
class Delays:
    """Seconds from an acknowledged write, one value per replica and write.

    `first`: to the first answer that obeys it. `lower`: to when the last answer before was asked for, 0 when that was
    before the write was acknowledged: the plan itself arrived between the two.
    """

    first: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    failed: int = 0


def measure(fleet: Fleet, writes: int, rate: float) -> Delays:
    """`writes` policies made for everyone and deleted again, under `rate` requests a second at each replica."""
    delays, traffic = Delays(), Traffic(fleet.replicas, rate)
    try:
        with channel(f"127.0.0.1:{fleet.interpreter}") as opened:
            stub = steering_pb2_grpc.SteeringStub(opened)
            for number in range(-1, writes):  # the first one warms up
                kept = delays if number >= 0 else Delays()
                created = stub.CreatePolicy(_policy(), timeout=_CALL_S)
                id_ = created.policy.id
                _follow(traffic, kept, created.plan_revision, lambda seen: id_ in seen.applied, rate)  # noqa: B023
                deleted = stub.DeletePolicy(
                    steering_pb2.DeletePolicyRequest(policy_id=id_, reason="benchmark"), timeout=_CALL_S
                )
                _follow(traffic, kept, deleted.plan_revision, lambda seen: id_ not in seen.applied, rate)  # noqa: B023
    finally:
        traffic.close()
    delays.failed = traffic.failed
    return delays


def _follow(traffic: Traffic, delays: Delays, revision: int, obeys: Callable[[Seen], bool], rate: float) -> None:
    """Called as soon as a write was acknowledged; waits a random time afterwards, so that writes fall anywhere."""
    acknowledged = time.perf_counter()
    answers = traffic.wait_until(lambda seen: seen.plan_revision >= revision and obeys(seen), _LONGEST_S)
    for seen in answers:
        first, lower = first_obeying(seen, acknowledged, lambda one: one.plan_revision >= revision and obeys(one))
        delays.first.append(first)
        delays.lower.append(lower)
    time.sleep(random.uniform(0.5, 1.5) / rate)
    traffic.forget()


def first_obeying(answers: list[Seen], acknowledged: float, obeys: Callable[[Seen], bool]) -> tuple[float, float]:
    """(seconds to the first answer that obeys, seconds to when the newest one asked before and not obeying was asked).

    Both at least 0: a plan may be live before the caller hears that its write was taken.
    """
    first = min(one.had for one in answers if obeys(one))
    before = [one.asked for one in answers if not obeys(one) and one.asked < first]
    return max(0.0, first - acknowledged), max(0.0, max(before, default=0.0) - acknowledged)


def _policy() -> steering_pb2.CreatePolicyRequest:
    operation = steering_pb2.Operation(concept_id=CONCEPT, kind=steering_pb2.OPERATION_KIND_ADD, value=1.0)
    window = window_message(Window(end=time.time() + _DAY_S))
    policy = steering_pb2.Policy(name="benchmark", model=MODEL, operations=[operation], window=window)
    return steering_pb2.CreatePolicyRequest(policy=policy, reason="benchmark", allow_outside_safe_range=True)
