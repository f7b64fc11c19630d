"""A refresh seen from outside: who steers on, and who is suspended and why. Real servers."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.integration.interpreter.refreshes import (
    APART,
    DOUBTED,
    GONE,
    KEPT,
    MODEL,
    MOVED,
    refreshed,
    wait_for,
    wait_for_triple,
)

from recsae.steering.policies import Window
from recsae.steering.wire import window_message
from recsae.v1 import recommender_pb2, steering_pb2

Start = Callable[..., Any]


def policy_on(stubs: Any, concept: str) -> str:
    operation = steering_pb2.Operation(concept_id=concept, kind=steering_pb2.OPERATION_KIND_ADD, value=1.0)
    policy = steering_pb2.Policy(
        name=concept, model=MODEL, operations=[operation], window=window_message(Window(end=time.time() + 600))
    )
    made = stubs.steering.CreatePolicy(steering_pb2.CreatePolicyRequest(policy=policy, reason="because"))
    return str(made.policy.id)


def policies(stubs: Any) -> dict[str, steering_pb2.Policy]:
    return {one.name: one for one in stubs.steering.ListPolicies(steering_pb2.ListPoliciesRequest()).policies}


def test_a_kept_concept_steers_through_a_promotion_without_a_gap_and_all_others_are_suspended_with_the_reason(
    start_interpreter: Start, start_recommender: Start, stubs: Start, promote: Start, point: Start, published: Any
) -> None:
    promote(0)
    app = start_interpreter()
    interpreter = stubs(app.server.port)
    recommender = stubs(start_recommender(interpreter=f"127.0.0.1:{app.server.port}").server.port)
    made = {concept: policy_on(interpreter, concept) for concept in (KEPT, DOUBTED, MOVED, GONE, APART)}

    def receipt() -> Any:
        ask = recommender_pb2.RecommendRequest(user_id="u-5", k=10)
        return recommender.recommender.Recommend(ask, timeout=10).receipt

    wait_for("steering by all five", lambda: len(receipt().applied) == 5)
    triple = refreshed(published, 0, "kept")
    receipts: list[Any] = []
    arrived = threading.Event()

    def ask_all_the_time() -> None:
        while not arrived.is_set():
            receipts.append(receipt())
            if receipts[-1].triple.dictionary_version == triple.dictionary_version:
                arrived.set()

    asking = threading.Thread(target=ask_all_the_time)
    asking.start()
    point(triple)
    assert arrived.wait(20)
    asking.join()
    applied = [{one.policy_id for one in one.applied} for one in receipts]
    assert all(made[KEPT] in names for names in applied)
    assert applied[-1] == {made[KEPT]}

    shown = policies(interpreter)
    assert shown[KEPT].state == steering_pb2.POLICY_STATE_LIVE
    suspended = steering_pb2.POLICY_STATE_SUSPENDED
    assert {shown[concept].state for concept in (DOUBTED, MOVED, GONE, APART)} == {suspended}
    assert f"{DOUBTED} no longer passes verification with its old rule" in shown[DOUBTED].state_reason
    assert f"{MOVED} drifted (decoder cosine 0.50" in shown[MOVED].state_reason
    assert f"{GONE} was lost" in shown[GONE].state_reason
    assert f"{APART} was split into c-new-11, c-new-9" in shown[APART].state_reason
    with urllib.request.urlopen(f"http://127.0.0.1:{app.metrics_port}/metrics", timeout=5) as page:
        assert 'recsae_policies{model="tiny",state="suspended"} 4.0' in page.read().decode()


def test_a_policy_made_again_for_the_concept_as_it_is_now_steers(
    start_interpreter: Start, stubs: Start, promote: Start, point: Start, published: Any
) -> None:
    promote(0)
    interpreter = stubs(start_interpreter().server.port)
    policy_on(interpreter, MOVED)
    triple = refreshed(published, 0, "again")
    point(triple)
    wait_for_triple(interpreter, triple)
    again = policy_on(interpreter, MOVED)
    states = [one.state for one in interpreter.steering.ListPolicies(steering_pb2.ListPoliciesRequest()).policies]
    assert states == [steering_pb2.POLICY_STATE_SUSPENDED, steering_pb2.POLICY_STATE_LIVE]
    call = interpreter.steering.WatchPlans(steering_pb2.WatchPlansRequest(model=MODEL, watcher="t"), timeout=10)
    plans = (event.plans.plans[0] for event in call if event.WhichOneof("event") == "plans")
    plan = next(plan for plan in plans if plan.policies)
    call.cancel()
    assert [one.ref.policy_id for one in plan.policies] == [again]
    assert plan.triple.dictionary_version == triple.dictionary_version


def test_going_back_never_binds_a_policy_to_what_the_concept_meant_before(
    start_interpreter: Start, stubs: Start, promote: Start, point: Start, published: Any
) -> None:
    promote(0)
    interpreter = stubs(start_interpreter().server.port)
    triple = refreshed(published, 0, "back")
    point(triple)
    wait_for_triple(interpreter, triple)
    policy_on(interpreter, MOVED)
    point(published.triples[0])
    wait_for_triple(interpreter, published.triples[0])
    shown = policies(interpreter)[MOVED]
    assert shown.state == steering_pb2.POLICY_STATE_SUSPENDED
    assert f"was named for dictionary {triple.dictionary_version}" in shown.state_reason
