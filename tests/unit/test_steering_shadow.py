"""Shadow policies and control groups: computed and told, without a bit of effect on what is served."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsae.pipeline.triples import Triple
from recsae.steering.delta import Encode, Steerer
from recsae.steering.live_plan import LivePlan
from recsae.steering.matching import SteerContext
from recsae.steering.plans import Basis, Floats, Plan, PlanOperation, PlanPolicy, compile_plan
from recsae.steering.policies import Operation, OperationKind, PolicyDraft, PolicyState, Scope, Window, new_policy
from recsae.steering.receipts import PolicyRef, Receipt, ShadowOutcome, UnsteeredReason
from recsae.steering.segments import Equals
from recsae.steering.wire_plans import receipt_from, receipt_message

DIM = 6
ROWS: Floats = np.eye(DIM, dtype=np.float32)
X: Floats = np.random.default_rng(3).standard_normal((5, DIM)).astype(np.float32)
CONTEXTS = [SteerContext(f"u-{row}") for row in range(len(X))]
ADD, SET = OperationKind.ADD, OperationKind.SET


@dataclass(frozen=True)
class Codes:
    indices: NDArray[Any]
    values: Floats


def positive_parts(x: Floats) -> Codes:
    return Codes(np.tile(np.arange(DIM), (len(x), 1)), np.maximum(x, 0))


def failing(_x: Floats) -> Codes:
    raise RuntimeError("out of memory")


def policy(
    name: str,
    *operations: tuple[int, OperationKind, float],
    shadow: bool = False,
    scope: Scope | None = None,
    window: Window | None = None,
) -> PlanPolicy:
    made = tuple(PlanOperation(latent, kind, value, ROWS[latent]) for latent, kind, value in operations)
    return PlanPolicy(PolicyRef(name, 1), made, scope or Scope(), window or Window(), f"salt-{name}", shadow)


def steerer(*policies: PlanPolicy, encode: Encode | None = positive_parts, norm_budget: float = 50.0) -> Steerer:
    plan = Plan(9, "m", Triple("a" * 16, "b" * 16, "c" * 16), policies, DIM, "h", 0.0, norm_budget)
    return Steerer(plan, encode)


def test_a_shadow_policy_changes_no_bit_and_its_effect_is_in_the_receipt() -> None:
    live, shadow = policy("live", (0, ADD, 1.0)), policy("shadow", (1, ADD, 0.5), (2, ADD, 0.5), shadow=True)
    bare = steerer(live).steer(X, CONTEXTS, 0.0)
    steered = steerer(live, shadow).steer(X, CONTEXTS, 0.0)
    assert steered.activation.tobytes() == bare.activation.tobytes()
    for request, (receipt, without) in enumerate(zip(steered.receipts, bare.receipts, strict=True)):
        assert replace(receipt, shadow=None) == without
        assert receipt.shadow is not None
        assert receipt.shadow.policies == (shadow.ref,)
        assert receipt.shadow.delta_norm == pytest.approx(np.sqrt(0.5), rel=1e-6)
        assert receipt.shadow.delta_share == pytest.approx(np.sqrt(0.5) / np.linalg.norm(X[request]), rel=1e-6)
        np.testing.assert_allclose(
            steered.shadows[request], bare.activation[[request]] + 0.5 * (ROWS[1] + ROWS[2]), atol=1e-6
        )


def test_a_row_that_only_shadow_policies_hold_for_is_the_very_array() -> None:
    steered = steerer(policy("shadow", (1, ADD, 0.5), shadow=True)).steer(X, CONTEXTS, 0.0)
    assert steered.activation is X
    assert {receipt.reason for receipt in steered.receipts} == {UnsteeredReason.NONE_MATCHED}
    assert all(
        receipt.shadow and receipt.shadow.delta_norm == pytest.approx(0.5, rel=1e-6) for receipt in steered.receipts
    )


def test_a_shadow_policy_of_higher_priority_would_keep_the_concept_and_one_of_lower_would_not() -> None:
    first, live, last = (
        policy("first", (0, ADD, 3.0), shadow=True),
        policy("live", (0, ADD, 1.0)),
        policy("last", (0, ADD, 9.0), shadow=True),
    )
    steered = steerer(first, live).steer(X[:1], CONTEXTS[:1], 0.0)
    np.testing.assert_allclose(steered.activation[0], X[0] + ROWS[0], atol=1e-6)
    np.testing.assert_allclose(steered.shadows[0][0], X[0] + 3 * ROWS[0], atol=1e-6)
    assert steered.receipts[0].applied == (live.ref,)
    overruled = steerer(live, last).steer(X[:1], CONTEXTS[:1], 0.0)
    assert overruled.receipts[0].shadow is None
    assert overruled.shadows == {}


def test_a_shadow_policy_that_would_break_the_norm_budget_says_so_and_the_live_one_applies() -> None:
    live, shadow = policy("live", (0, ADD, 0.1)), policy("shadow", (1, ADD, 100.0), shadow=True)
    steered = steerer(live, shadow, norm_budget=1.0).steer(X[:1], CONTEXTS[:1], 0.0)
    assert steered.receipts[0].reason is UnsteeredReason.STEERED
    assert steered.receipts[0].shadow == ShadowOutcome((shadow.ref,), reason=UnsteeredReason.OVER_NORM_BUDGET)
    assert steered.shadows == {}


@pytest.mark.parametrize("encode", [None, failing])
def test_an_encoder_that_fails_for_a_shadow_policy_leaves_live_additions_alone(encode: Encode | None) -> None:
    live, shadow = policy("live", (0, ADD, 1.0)), policy("shadow", (1, SET, 0.5), shadow=True)
    steered = steerer(live, shadow, encode=encode).steer(X, CONTEXTS, 0.0)
    assert steered.activation.tobytes() == steerer(live).steer(X, CONTEXTS, 0.0).activation.tobytes()
    assert {receipt.reason for receipt in steered.receipts} == {UnsteeredReason.STEERED}
    shadows = [receipt.shadow for receipt in steered.receipts]
    assert shadows == [ShadowOutcome((shadow.ref,), reason=UnsteeredReason.ERROR)] * len(X)
    assert isinstance(steered.error, RuntimeError)


def test_without_a_matching_shadow_policy_the_encoder_is_not_run_for_it() -> None:
    shadow = policy("shadow", (1, SET, 0.5), shadow=True, scope=Scope(("somebody",)))
    steered = steerer(policy("live", (0, ADD, 1.0)), shadow, encode=failing).steer(X, CONTEXTS, 0.0)
    assert steered.error is None
    assert {receipt.shadow for receipt in steered.receipts} == {None}


operations = st.lists(
    st.tuples(st.integers(0, DIM - 1), st.sampled_from(list(OperationKind)), st.floats(0, 3)),
    min_size=1,
    max_size=3,
    unique_by=lambda one: one[0],
)
scopes = st.one_of(
    st.just(Scope()), st.just(Scope(("u-0", "u-3"))), st.builds(Scope, rollout_percent=st.sampled_from((0.0, 40.0)))
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(operations, scopes, st.booleans()), min_size=1, max_size=5))
def test_what_is_served_is_what_the_live_policies_alone_serve(
    parts: list[tuple[list[tuple[int, OperationKind, float]], Scope, bool]],
) -> None:
    made = [
        policy(f"p-{place}", *asked, shadow=shadow, scope=scope) for place, (asked, scope, shadow) in enumerate(parts)
    ]
    mixed, alone = steerer(*made), steerer(*[one for one in made if not one.shadow])
    everything = steerer(*[replace(one, shadow=False) for one in made])
    steered, bare, all_live = (one.steer(X, CONTEXTS, 0.0) for one in (mixed, alone, everything))
    assert steered.activation.tobytes() == bare.activation.tobytes()
    for request in range(len(X)):
        receipt = steered.receipts[request]
        assert replace(receipt, shadow=None) == bare.receipts[request]
        single = mixed.steer(X[request : request + 1], CONTEXTS[request : request + 1], 0.0)
        assert single.receipts[0] == receipt
        if request in steered.shadows:
            assert steered.shadows[request].tobytes() == all_live.activation[request : request + 1].tobytes()
            assert steered.shadows[request].tobytes() == single.shadows[0].tobytes()
            assert receipt.shadow is not None
            moved = steered.shadows[request].astype(np.float64) - steered.activation[request]
            assert receipt.shadow.delta_norm == pytest.approx(float(np.linalg.norm(moved)), rel=1e-9, abs=1e-12)


def test_requests_of_several_rows_have_the_rows_they_would_have_had() -> None:
    shadow = policy("shadow", (1, ADD, 0.5), shadow=True, scope=Scope(("u-1",)))
    steered = steerer(shadow).steer_groups(X, CONTEXTS[:2], [2, 3], 0.0)
    assert steered.shadows.keys() == {1}
    np.testing.assert_allclose(steered.shadows[1], X[2:] + np.float32(0.5) * ROWS[1], atol=1e-6)
    assert steered.receipts[0].shadow is None


def test_a_receipt_names_the_live_policies_that_only_the_rollout_keeps_away() -> None:
    out = policy("out", (0, ADD, 1.0), scope=Scope(rollout_percent=0))
    applied = policy("in", (1, ADD, 1.0))
    others = [
        policy("shadow", (2, ADD, 1.0), shadow=True, scope=Scope(rollout_percent=0)),
        policy("others", (3, ADD, 1.0), scope=Scope(("somebody",), rollout_percent=0)),
        policy("elsewhere", (3, ADD, 1.0), scope=Scope(segment=Equals("country", "DE"), rollout_percent=0)),
        policy("over", (4, ADD, 1.0), scope=Scope(rollout_percent=0), window=Window(end=0.0)),
    ]
    for made, reason in (((out, applied), UnsteeredReason.STEERED), ((out,), UnsteeredReason.NONE_MATCHED)):
        steered = steerer(*made, *others).steer(X, CONTEXTS, 0.0)
        assert {receipt.held_out for receipt in steered.receipts} == {(out.ref,)}
        assert {receipt.reason for receipt in steered.receipts} == {reason}
    assert steered.activation is X


def test_a_live_model_is_told_of_shadows_and_control_groups_and_not_changed_by_them() -> None:
    shadow = policy("shadow", (1, ADD, 0.5), shadow=True, scope=Scope(("u-0",)))
    held = policy("held", (2, ADD, 0.5), scope=Scope(("u-1",), rollout_percent=0))
    plan = LivePlan(lambda: steerer(shadow, held), "a" * 16, "h")
    read: list[int] = []

    def reader(rows: list[int]) -> Floats:
        read.extend(rows)
        return X[rows]

    change = plan.change(CONTEXTS[:2], reader, rows_each=2)
    assert read == [0, 1]
    assert change.rows == ()
    assert change.receipts[0].shadow is not None
    assert change.receipts[0].shadow.delta_norm == pytest.approx(0.5, rel=1e-6)
    assert change.receipts[1].held_out == (held.ref,)


def test_a_plan_holds_shadow_policies_in_the_order_of_all() -> None:
    basis = Basis("m", Triple("a" * 16, "b" * 16, "c" * 16), "h", {"c-0": 0}, np.ones(1, np.float32), ROWS[:1])
    draft = PolicyDraft("test", "m", (Operation("c-0", ADD, 1.0),), window=Window(end=100.0))
    live, shadow, other = (
        replace(new_policy(replace(draft, priority=priority), actor="me", now=1.0), state=state)
        for priority, state in ((1, PolicyState.LIVE), (2, PolicyState.SHADOW), (3, PolicyState.DRAFT))
    )
    plan = compile_plan([live, shadow, other], basis, revision=1, now=2.0)
    assert [(one.ref.policy_id, one.shadow) for one in plan.policies] == [(shadow.id, True), (live.id, False)]


@pytest.mark.parametrize("reason", list(UnsteeredReason))
def test_a_receipt_comes_back_from_its_message_as_it_was(reason: UnsteeredReason) -> None:
    a, b = PolicyRef("a", 1), PolicyRef("b", 2)
    triple = Triple("a" * 16, "b" * 16, "c" * 16)
    for receipt in (
        Receipt(reason),
        Receipt(reason, (a, b), 7, triple, 0.5, 0.25, (b,), ShadowOutcome((b, a), 1.5, 0.75, reason)),
    ):
        assert receipt_from(receipt_message(receipt)) == receipt
