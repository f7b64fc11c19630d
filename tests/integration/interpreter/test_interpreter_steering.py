"""Policies over gRPC, from the write to the first steered recommendation, with the real follower in a recommender."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.steering.delta import Steerer
from recsae.steering.encoder import OnnxEncoder
from recsae.steering.follower import PlanFollower
from recsae.steering.matching import SteerContext
from recsae.steering.policies import Window
from recsae.steering.wire import window_message
from recsae.steering.wire_plans import plan_from
from recsae.v1 import common_pb2, recommender_pb2, steering_pb2

Start = Callable[..., Any]
MODEL = "tiny"
NONE_MATCHED = common_pb2.UNSTEERED_REASON_NONE_MATCHED


def operation(concept: str, kind: int, value: float = 0.0) -> steering_pb2.Operation:
    return steering_pb2.Operation(concept_id=concept, kind=kind, value=value)  # type: ignore[arg-type]


UP = operation("c-0-3", steering_pb2.OPERATION_KIND_ADD, 2.0)
OFF = operation("c-0-5", steering_pb2.OPERATION_KIND_ABLATE)


def create(
    *operations: steering_pb2.Operation,
    users: tuple[str, ...] = (),
    key: str = "",
    reason: str = "because",
    **more: Any,
) -> steering_pb2.CreatePolicyRequest:
    policy = steering_pb2.Policy(
        name="test",
        model=MODEL,
        operations=operations or [UP],
        scope=steering_pb2.Scope(user_ids=users),
        window=window_message(Window(end=time.time() + 600)),
    )
    policy.MergeFrom(steering_pb2.Policy(**more))
    return steering_pb2.CreatePolicyRequest(policy=policy, reason=reason, idempotency_key=key)


def refused(call: Callable[..., object], request: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        call(request)
    answer: Any = error.value
    return answer.code(), answer.details()


@pytest.fixture
def interpreter(start_interpreter: Start, stubs: Start, promote: Start) -> Any:
    """Stubs of an interpreter with triple 0 promoted."""
    promote(0)
    return stubs(start_interpreter().server.port)


@pytest.fixture
def pair(start_interpreter: Start, start_recommender: Start, stubs: Start, promote: Start) -> tuple[Any, Any]:
    """Stubs of an interpreter and of a recommender that follows its plans."""
    promote(0)
    app = start_interpreter()
    recommender = start_recommender(interpreter=f"127.0.0.1:{app.server.port}")
    return stubs(app.server.port), stubs(recommender.server.port)


def recommend(stubs: Any, user: str = "u-5") -> recommender_pb2.RecommendResponse:
    answer: recommender_pb2.RecommendResponse = stubs.recommender.Recommend(
        recommender_pb2.RecommendRequest(user_id=user, k=10), timeout=10
    )
    return answer


def test_a_policy_is_live_within_a_second_and_its_deletion_restores_the_list_bit_for_bit(
    pair: tuple[Any, Any],
) -> None:
    interpreter, recommender = pair
    before = recommend(recommender)
    assert before.receipt.reason == NONE_MATCHED
    created = interpreter.steering.CreatePolicy(create(UP, OFF, users=("u-5",)))
    acknowledged = time.monotonic()
    while not (steered := recommend(recommender)).receipt.applied:
        assert time.monotonic() < acknowledged + 10, "the policy never took effect"
    assert time.monotonic() - acknowledged < 1.0
    assert steered.receipt.applied[0].policy_id == created.policy.id
    assert steered.receipt.plan_revision >= created.plan_revision
    assert steered.receipt.delta_norm > 0
    assert list(steered.items) != list(before.items)
    assert recommend(recommender, "u-4").receipt.reason == NONE_MATCHED
    deleted = interpreter.steering.DeletePolicy(
        steering_pb2.DeletePolicyRequest(policy_id=created.policy.id, reason="over")
    )
    acknowledged = time.monotonic()
    while (after := recommend(recommender)).receipt.plan_revision < deleted.plan_revision:
        assert time.monotonic() < acknowledged + 10, "the deletion never took effect"
    assert time.monotonic() - acknowledged < 1.0
    assert after.receipt.reason == NONE_MATCHED
    assert [item.SerializeToString() for item in after.items] == [item.SerializeToString() for item in before.items]


def test_steer_and_the_plan_applied_in_process_agree_and_leave_neighbours_bit_for_bit(
    interpreter: Any, published: Any
) -> None:
    scale = operation("c-0-1", steering_pb2.OPERATION_KIND_SCALE, 2.5)
    cap = operation("c-0-2", steering_pb2.OPERATION_KIND_CAP, 0.3)
    put = operation("c-0-4", steering_pb2.OPERATION_KIND_SET, 0.7)
    created = interpreter.steering.CreatePolicy(create(UP, OFF, scale, cap, put, users=("u-1", "u-3")))
    x = np.random.default_rng(1).standard_normal((6, 16)).astype(np.float32)
    contexts = [SteerContext(f"u-{row}") for row in range(6)]
    request = steering_pb2.SteerRequest(
        batch=common_pb2.ActivationBatch(model=MODEL, model_version=published.model_version, activations=to_tensor(x)),
        contexts=[steering_pb2.SteerContext(user_id=context.user_id) for context in contexts],
    )
    plans = wait_for_plans(interpreter, created.plan_revision)
    by_rpc = interpreter.steering.Steer(request)
    encoder = interpreter.steering.GetEncoder(
        steering_pb2.GetEncoderRequest(sae_version=published.triples[0].sae_version)
    )
    plan = plan_from(plans.plans[0])
    in_process = Steerer(plan, OnnxEncoder(encoder.onnx, plan.dim)).steer(x, contexts, time.time())
    steered = from_tensor(by_rpc.activations, name="x'")
    np.testing.assert_allclose(steered, in_process.activation, atol=1e-6, rtol=0)
    for row in range(6):
        touched = row in (1, 3)
        assert (steered[row].tobytes() != x[row].tobytes()) is touched
        assert (in_process.activation[row].tobytes() != x[row].tobytes()) is touched
        assert list(by_rpc.receipts[row].applied) == (
            [common_pb2.PolicyRef(policy_id=created.policy.id, revision=1)] if touched else []
        )


def test_a_version_without_promoted_sae_is_not_steered_by_the_plan_of_another(interpreter: Any, published: Any) -> None:
    created = interpreter.steering.CreatePolicy(create())
    wait_for_plans(interpreter, created.plan_revision)
    x = np.ones((2, 16), np.float32)
    reasons = []
    for model_version in (published.model_version, "f" * 16):
        batch = common_pb2.ActivationBatch(model=MODEL, model_version=model_version, activations=to_tensor(x))
        contexts = [steering_pb2.SteerContext()] * 2
        answer = interpreter.steering.Steer(steering_pb2.SteerRequest(batch=batch, contexts=contexts))
        reasons.append(answer.receipts[0].reason)
        unchanged = from_tensor(answer.activations, name="x'").tobytes() == x.tobytes()
        assert unchanged is (model_version != published.model_version)
    assert reasons == [common_pb2.UNSTEERED_REASON_UNSPECIFIED, common_pb2.UNSTEERED_REASON_NO_SAE_FOR_MODEL]


def wait_for_plans(stubs: Any, revision: int) -> steering_pb2.PlanSet:
    call = stubs.steering.WatchPlans(steering_pb2.WatchPlansRequest(model=MODEL, watcher="test"), timeout=10)
    for event in call:
        if event.WhichOneof("event") == "plans" and event.plans.revision >= revision:
            call.cancel()
            plans: steering_pb2.PlanSet = event.plans
            return plans
    raise AssertionError("the stream ended without the plan")


def test_a_stream_begins_with_the_plans_in_force_and_beats_when_nothing_changes(interpreter: Any) -> None:
    created = interpreter.steering.CreatePolicy(create())
    wait_for_plans(interpreter, created.plan_revision)
    call = interpreter.steering.WatchPlans(steering_pb2.WatchPlansRequest(model=MODEL, watcher="test"), timeout=20)
    snapshot, beat = next(call), next(call)
    call.cancel()
    assert snapshot.plans.revision == beat.heartbeat.revision == created.plan_revision
    (plan,) = snapshot.plans.plans
    assert [policy.ref.policy_id for policy in plan.policies] == [created.policy.id]
    assert (plan.dim, plan.hook, plan.norm_budget) == (16, "sequence", 2.0)


def test_a_model_version_without_promoted_sae_is_unsteered_and_says_so(
    start_interpreter: Start, start_recommender: Start, stubs: Start, published: Any
) -> None:
    app = start_interpreter()
    recommender = stubs(start_recommender(interpreter=f"127.0.0.1:{app.server.port}").server.port)
    deadline = time.monotonic() + 10
    no_sae = common_pb2.UNSTEERED_REASON_NO_SAE_FOR_MODEL
    while (receipt := recommend(recommender).receipt).reason != no_sae:
        assert time.monotonic() < deadline, f"the receipt says {receipt.reason}"
    assert receipt.triple.model_version == published.model_version
    x = np.ones((2, 16), np.float32)
    batch = common_pb2.ActivationBatch(model=MODEL, model_version=published.model_version, activations=to_tensor(x))
    answer = stubs(app.server.port).steering.Steer(
        steering_pb2.SteerRequest(batch=batch, contexts=[steering_pb2.SteerContext()] * 2)
    )
    assert from_tensor(answer.activations, name="x'").tobytes() == x.tobytes()
    assert {one.reason for one in answer.receipts} == {no_sae}
    code, words = refused(stubs(app.server.port).steering.CreatePolicy, create())
    assert code is grpc.StatusCode.NOT_FOUND
    assert "no promoted SAE" in words


def test_a_policy_that_can_never_work_is_refused_and_nothing_is_written(interpreter: Any) -> None:
    call = interpreter.steering.CreatePolicy
    unknown = operation("c-1-3", steering_pb2.OPERATION_KIND_ADD, 1.0)
    dead = operation("c-0-47", steering_pb2.OPERATION_KIND_ADD, 1.0)
    for request, words in (
        (create(unknown), "'c-1-3' is no live concept"),
        (create(dead), "'c-0-47' is no live concept"),
        (create(UP, UP), "comes 2 times"),
        (create(operation("c-0-1", 0)), "kind 0"),
        (create(reason=""), "reason has 0"),
        (create(key="k" * 65), "idempotency_key has 65"),
    ):
        code, said = refused(call, request)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert words in said
    without_end = create()
    without_end.policy.ClearField("window")
    assert "has no end" in refused(call, without_end)[1]
    assert not interpreter.steering.ListPolicies(steering_pb2.ListPoliciesRequest()).policies


def test_the_life_of_a_policy_is_in_the_audit_trail_with_who_and_why(interpreter: Any) -> None:
    steering = interpreter.steering
    created = steering.CreatePolicy(create(key="k-1"), metadata=(("x-request-id", "req-1"),))
    assert steering.CreatePolicy(create(key="other")).policy.id != created.policy.id
    stale = steering_pb2.DeletePolicyRequest(policy_id=created.policy.id, revision=7, reason="over")
    assert refused(steering.DeletePolicy, stale)[0] is grpc.StatusCode.ABORTED
    right = steering_pb2.DeletePolicyRequest(policy_id=created.policy.id, revision=1, reason="over")
    gone = steering.DeletePolicy(right, metadata=(("x-request-id", "req-2"),))
    again = steering.DeletePolicy(right)
    assert (gone.policy.state, gone.policy.revision) == (steering_pb2.POLICY_STATE_REVERTED, 2)
    assert again.policy == gone.policy
    events = steering.ListAudit(steering_pb2.ListAuditRequest(policy_id=created.policy.id)).events
    assert [(one.action, one.reason, one.actor, one.request_id) for one in events] == [
        ("policy.delete", "over", "anonymous", "req-2"),
        ("policy.create", "because", "anonymous", "req-1"),
    ]
    listed = steering.ListPolicies(steering_pb2.ListPoliciesRequest(model=MODEL)).policies
    assert created.policy.id not in {one.id for one in listed}
    ended = steering.ListPolicies(steering_pb2.ListPoliciesRequest(model=MODEL, include_ended=True)).policies
    assert created.policy.id in {one.id for one in ended}
    found = steering.GetPolicy(steering_pb2.GetPolicyRequest(policy_id=created.policy.id)).policy
    assert found.state == steering_pb2.POLICY_STATE_REVERTED


def test_the_audit_actor_is_the_authenticated_principal(start_interpreter: Start, stubs: Start, promote: Start) -> None:
    promote(0)
    steering = stubs(start_interpreter(tokens="ops:operator:0123456789abcdef").server.port).steering
    assert refused(steering.CreatePolicy, create())[0] is grpc.StatusCode.UNAUTHENTICATED
    known = (("authorization", "Bearer 0123456789abcdef"),)
    made = steering.CreatePolicy(create(created_by="somebody else"), metadata=known)
    assert made.policy.created_by == "ops"
    (event,) = steering.ListAudit(steering_pb2.ListAuditRequest(), metadata=known).events[:1]
    assert event.actor == "ops"


def test_a_repeated_create_with_one_key_makes_one_policy(interpreter: Any) -> None:
    request = create(key="once")
    first, second = (interpreter.steering.CreatePolicy(request) for _ in range(2))
    assert first == second
    assert len(interpreter.steering.ListPolicies(steering_pb2.ListPoliciesRequest()).policies) == 1
    other = create(OFF, key="once")
    assert refused(interpreter.steering.CreatePolicy, other)[0] is grpc.StatusCode.ABORTED


def test_a_new_dictionary_without_the_concept_suspends_the_policy_with_the_reason(
    interpreter: Any, promote: Start, swapped: Start
) -> None:
    created = interpreter.steering.CreatePolicy(create())
    promote(1)
    swapped(interpreter, 1)
    policy = interpreter.steering.GetPolicy(steering_pb2.GetPolicyRequest(policy_id=created.policy.id)).policy
    assert policy.state == steering_pb2.POLICY_STATE_SUSPENDED
    assert "c-0-3 is not in dictionary" in policy.state_reason
    (plan,) = wait_for_plans(interpreter, created.plan_revision + 1).plans
    assert not plan.policies


def test_preview_and_policy_give_the_same_list(
    start_interpreter: Start, start_recommender: Start, stubs: Start, promote: Start
) -> None:
    promote(0)
    asked = start_recommender()
    app = start_interpreter(recommenders=f"127.0.0.1:{asked.server.port}")
    interpreter = stubs(app.server.port)
    steered = stubs(start_recommender(interpreter=f"127.0.0.1:{app.server.port}").server.port)
    preview = interpreter.steering.Preview(steering_pb2.PreviewRequest(user_id="u-5", operations=[UP, OFF], k=10))
    assert list(preview.before) == list(recommend(stubs(asked.server.port)).items)
    ids = [item.item_id for item in preview.before]
    assert [one.rank_before for one in preview.after] == [
        ids.index(one.item.item_id) + 1 if one.item.item_id in ids else 0 for one in preview.after
    ]
    assert preview.overlap == pytest.approx(sum(one.rank_before > 0 for one in preview.after) / 10)
    up, off = preview.strengths
    assert (up.target - up.before, off.target) == (pytest.approx(2.0), 0.0)
    interpreter.steering.CreatePolicy(create(UP, OFF))
    deadline = time.monotonic() + 10
    while not (live := recommend(steered)).receipt.applied:
        assert time.monotonic() < deadline, "the policy never took effect"
    assert list(live.items) == [one.item for one in preview.after]
    assert live.receipt.delta_norm == pytest.approx(preview.receipt.delta_norm, rel=1e-6)


def test_the_kill_switch_reaches_every_plan(start_interpreter: Start, stubs: Start, promote: Start) -> None:
    promote(0)
    interpreter = stubs(start_interpreter(kill_switch="true").server.port)
    created = interpreter.steering.CreatePolicy(create())
    assert wait_for_plans(interpreter, created.plan_revision).plans[0].kill_switch


def test_a_stream_ends_at_drain_and_its_follower_finds_the_next_interpreter(
    start_interpreter: Start, stubs: Start, promote: Start, published: Any
) -> None:
    promote(0)
    first = start_interpreter()
    port = first.server.port
    watching = stubs(port)
    created = watching.steering.CreatePolicy(create())
    follower = PlanFollower(watching.channel, MODEL, published.model_version, watcher="test").start()
    try:
        assert follower.wait_for_revision(created.plan_revision, 10)
        stopped = threading.Thread(target=first.server.drain)
        began = time.monotonic()
        stopped.start()
        stopped.join(20)
        assert time.monotonic() - began < 4, "an open stream held the drain up"
        assert isinstance(follower.current(), Steerer), "the last good plan stays"
        second = stubs(start_interpreter(port=port).server.port)
        newer = second.steering.CreatePolicy(create(OFF), wait_for_ready=True, timeout=15)
        assert follower.wait_for_revision(newer.plan_revision, 15)
    finally:
        follower.close()
