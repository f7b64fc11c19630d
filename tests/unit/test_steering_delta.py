"""Applying plans: the arithmetic against an oracle, untouched neighbours, budgets, whatever an encoder may do wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.steering.delta import Encode, Steerer
from recsae.steering.matching import SteerContext
from recsae.steering.plans import Basis, Floats, Plan, compile_plan, suspension, verify_plan
from recsae.steering.policies import Operation, OperationKind, Policy, PolicyDraft, Scope, Window, new_policy, reverted
from recsae.steering.receipts import PolicyRef, UnsteeredReason
from recsae.steering.segments import Equals
from recsae.steering.wire_plans import plan_from, plan_message

NOW = 1_790_000_000.0
DIM, WIDTH, K = 8, 24, 4
ANYONE = SteerContext("u-1", "r-1")


@dataclass(frozen=True)
class Codes:
    indices: NDArray[Any]
    values: Floats


class TinySae:
    """A linear TopK encoder in numpy, row by row, with random unit decoder rows."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        rows = random.standard_normal((WIDTH, DIM))
        self.w_dec: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        self.calls: list[int] = []

    def latents(self, x: Floats) -> NDArray[np.float64]:
        z = np.maximum(self.w_dec.astype(np.float64) @ x.astype(np.float64), 0)
        z[np.argsort(-z)[K:]] = 0
        return z.astype(np.float32).astype(np.float64)

    def __call__(self, x: Floats) -> Codes:
        self.calls.append(len(x))
        z = np.stack([self.latents(row) for row in x])
        indices = np.argsort(-z, axis=1)[:, :K]
        return Codes(indices, np.take_along_axis(z, indices, axis=1).astype(np.float32))


SAE = TinySae()
BASIS = Basis(
    model="m",
    triple=Triple("a" * 16, "b" * 16, "c" * 16),
    hook="sequence",
    latents={f"c-{latent}": latent for latent in range(WIDTH)},
    p95=np.linspace(0.5, 2.0, WIDTH).astype(np.float32),
    w_dec=SAE.w_dec,
)
X: Floats = np.random.default_rng(3).standard_normal((6, DIM)).astype(np.float32)


def policy(*operations: tuple[str, OperationKind, float], now: float = NOW, **changes: Any) -> Policy:
    draft = PolicyDraft("test", "m", tuple(Operation(*one) for one in operations), window=Window(end=NOW + 3600))
    return new_policy(replace(draft, **changes), actor="me", now=now)


def plan(*policies: Policy, **changes: Any) -> Plan:
    return replace(compile_plan(policies, BASIS, revision=5, now=NOW, norm_budget=100.0), **changes)


def oracle(x: Floats, operations: dict[int, tuple[OperationKind, float]]) -> NDArray[np.float64]:
    z = SAE.latents(x)
    steered = x.astype(np.float64)
    for latent, (kind, value) in operations.items():
        strength = value * float(BASIS.p95[latent])
        wanted = {
            OperationKind.ABLATE: 0.0,
            OperationKind.SCALE: z[latent] * value,
            OperationKind.ADD: z[latent] + strength,
            OperationKind.SET: strength,
            OperationKind.CAP: min(z[latent], strength),
        }[kind]
        steered = steered + (wanted - z[latent]) * SAE.w_dec[latent].astype(np.float64)
    return steered


def test_the_change_is_the_sum_over_concepts_of_what_each_operation_asks() -> None:
    fires = int(np.argmax(SAE.latents(X[0])))
    asked = {
        fires: (OperationKind.ABLATE, 0.0),
        (fires + 1) % WIDTH: (OperationKind.ADD, -1.5),
        (fires + 2) % WIDTH: (OperationKind.SET, 0.75),
        (fires + 3) % WIDTH: (OperationKind.SCALE, 3.0),
        (fires + 4) % WIDTH: (OperationKind.CAP, 0.01),
    }
    steering = plan(policy(*[(f"c-{latent}", kind, value) for latent, (kind, value) in asked.items()]))
    steered = Steerer(steering, SAE).steer(X, [ANYONE] * len(X), NOW)
    for row in range(len(X)):
        np.testing.assert_allclose(steered.activation[row], oracle(X[row], asked), atol=1e-6)
        receipt = steered.receipts[row]
        change = steered.activation[row].astype(np.float64) - X[row]
        assert receipt.reason is UnsteeredReason.STEERED
        assert receipt.delta_norm == pytest.approx(np.linalg.norm(change), abs=1e-5)
        assert receipt.delta_share == pytest.approx(receipt.delta_norm / np.linalg.norm(X[row]), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_rows_bits_depend_neither_on_its_neighbours_nor_on_the_batch(data: st.DataObject) -> None:
    kinds = st.sampled_from(list(OperationKind))
    concepts = data.draw(st.lists(st.integers(0, WIDTH - 1), min_size=1, max_size=6, unique=True))
    users = ("u-0", "u-2")
    steering = plan(
        policy(*[(f"c-{c}", data.draw(kinds), data.draw(st.floats(0, 5))) for c in concepts]),
        policy((f"c-{concepts[0]}", OperationKind.ADD, 1.0), scope=Scope(users)),
        policy(("c-3", OperationKind.SET, 1.0), scope=Scope(users[:1])),
    )
    contexts = [SteerContext(f"u-{row}") for row in range(len(X))]
    together = Steerer(steering, SAE).steer(X, contexts, NOW).activation
    for row in range(len(X)):
        alone = Steerer(steering, SAE).steer(X[row : row + 1], contexts[row : row + 1], NOW).activation
        assert alone[0].tobytes() == together[row].tobytes()


def test_rows_without_a_match_stay_bit_for_bit_and_the_array_itself_when_no_row_matches() -> None:
    steering = plan(policy(("c-1", OperationKind.ADD, 2.0), scope=Scope(("u-4",))))
    contexts = [SteerContext(f"u-{row}") for row in range(len(X))]
    before = X.tobytes()
    steered = Steerer(steering, SAE).steer(X, contexts, NOW)
    for row in range(len(X)):
        assert (steered.activation[row].tobytes() == X[row].tobytes()) is (row != 4)
        assert steered.receipts[row].reason is (UnsteeredReason.STEERED if row == 4 else UnsteeredReason.NONE_MATCHED)
    assert X.tobytes() == before
    nobody = Steerer(steering, SAE).steer(X, [SteerContext("stranger")] * len(X), NOW)
    assert nobody.activation is X


def test_a_matching_policy_whose_concept_does_not_fire_changes_no_bit() -> None:
    silent = int(np.argmin(SAE.latents(X[0])))
    steered = Steerer(plan(policy((f"c-{silent}", OperationKind.ABLATE, 0.0))), SAE).steer(X[:1], [ANYONE], NOW)
    assert steered.activation is X[:1] or steered.activation.tobytes() == X[:1].tobytes()
    assert steered.receipts[0].reason is UnsteeredReason.STEERED
    assert steered.receipts[0].delta_norm == 0


def test_the_encoder_runs_once_and_only_for_rows_whose_operations_read_latents() -> None:
    sae = TinySae()
    additions = policy(("c-1", OperationKind.ADD, 1.0))
    reading = policy(("c-2", OperationKind.ABLATE, 0.0), scope=Scope(("u-0", "u-3")))
    contexts = [SteerContext(f"u-{row}") for row in range(len(X))]
    Steerer(plan(additions), sae).steer(X, contexts, NOW)
    assert sae.calls == []
    Steerer(plan(additions, reading), sae).steer(X, contexts, NOW)
    assert sae.calls == [2]


def test_the_first_policy_by_priority_then_age_keeps_a_concept() -> None:
    older = policy(("c-1", OperationKind.ADD, 1.0), now=NOW - 10)
    newer = policy(("c-1", OperationKind.ADD, 2.0), ("c-2", OperationKind.ADD, 1.0))
    urgent = policy(("c-1", OperationKind.ADD, 3.0), priority=1)
    eclipsed = policy(("c-2", OperationKind.ADD, 9.0), priority=-1)
    steered = Steerer(plan(newer, older, urgent, eclipsed)).steer(X[:1], [ANYONE], NOW)
    wanted = oracle(X[0], {1: (OperationKind.ADD, 3.0), 2: (OperationKind.ADD, 1.0)})
    np.testing.assert_allclose(steered.activation[0], wanted, atol=1e-6)
    assert steered.receipts[0].applied == (PolicyRef(urgent.id, 1), PolicyRef(newer.id, 1))
    without = Steerer(plan(newer, older)).steer(X[:1], [ANYONE], NOW)
    assert without.receipts[0].applied == (PolicyRef(older.id, 1), PolicyRef(newer.id, 1))


def test_start_end_segment_and_rollout_all_have_to_hold() -> None:
    window = Window(NOW + 10, NOW + 20)
    steerer = Steerer(plan(policy(("c-1", OperationKind.ADD, 1.0), window=window)))
    times = (NOW + 9.9, NOW + 10, NOW + 19.9, NOW + 20)
    assert [bool(steerer.match(ANYONE, at)) for at in times] == [False, True, True, False]
    scope = Scope(segment=Equals("country", "DE"), rollout_percent=0)
    assert not Steerer(plan(policy(("c-1", OperationKind.ADD, 1.0), scope=scope))).match(
        SteerContext("u", attributes={"country": "DE"}), NOW
    )
    steerer = Steerer(plan(policy(("c-1", OperationKind.ADD, 1.0), scope=Scope(segment=Equals("country", "DE")))))
    assert steerer.match(SteerContext(attributes={"country": "DE"}), NOW)
    assert not steerer.match(SteerContext(), NOW)
    assert steerer.matcher.unknown_attributes == 1


def test_a_change_over_the_norm_budget_leaves_the_row_unsteered_with_the_reason() -> None:
    budget = 0.5 * float(np.linalg.norm(X[0]))
    strength = budget / float(BASIS.p95[1])
    for factor, reason in ((0.99, UnsteeredReason.STEERED), (1.01, UnsteeredReason.OVER_NORM_BUDGET)):
        steering = plan(policy(("c-1", OperationKind.ADD, strength * factor)), norm_budget=0.5)
        steered = Steerer(steering).steer(X[:1], [ANYONE], NOW)
        assert steered.receipts[0].reason is reason
        assert (steered.activation.tobytes() == X[:1].tobytes()) is (reason is not UnsteeredReason.STEERED)


def broken(codes: object) -> Encode:
    def encode(_x: Floats) -> Any:
        if isinstance(codes, Exception):
            raise codes
        return codes

    return encode


LATENT = int(np.argmax(SAE.latents(X[0])))
NAN = Codes(np.full((1, K), LATENT), np.full((1, K), np.nan, np.float32))
HUGE = Codes(np.full((1, K), LATENT), np.array([[3e38, 0, 0, 0]], np.float32))


@pytest.mark.parametrize(
    ("encode", "reason"),
    [
        (None, UnsteeredReason.ERROR),
        (broken(RuntimeError("out of memory")), UnsteeredReason.ERROR),
        (broken(Codes(np.zeros((3, K), int), np.zeros((3, K), np.float32))), UnsteeredReason.ERROR),
        (broken(Codes(np.zeros((1, 2), int), np.zeros((1, K), np.float32))), UnsteeredReason.ERROR),
        (broken(NAN), UnsteeredReason.INVALID_CHANGE),
        (broken(HUGE), UnsteeredReason.OVER_NORM_BUDGET),
    ],
)
def test_a_wrong_encoder_leaves_its_rows_unsteered_and_the_others_steered(
    encode: Encode | None, reason: UnsteeredReason
) -> None:
    reading = policy((f"c-{LATENT}", OperationKind.SCALE, 2.0), scope=Scope(("u-0",)))
    adding = policy(("c-1", OperationKind.ADD, 1.0), scope=Scope(("u-1",)))
    contexts = [SteerContext("u-0"), SteerContext("u-1"), SteerContext("u-2")]
    steered = Steerer(plan(reading, adding), encode).steer(X[:3], contexts, NOW)
    assert [receipt.reason for receipt in steered.receipts] == [
        reason,
        UnsteeredReason.STEERED,
        UnsteeredReason.NONE_MATCHED,
    ]
    assert steered.activation[0].tobytes() == X[0].tobytes()
    assert steered.activation[1].tobytes() != X[1].tobytes()


def test_activations_of_another_length_or_type_or_not_finite_are_never_changed() -> None:
    steerer = Steerer(plan(policy(("c-1", OperationKind.ADD, 1.0))))
    poisoned = X[:1].copy()
    poisoned[0, 0] = np.nan
    wrong: list[Any] = [X[:1, :-1], X[:1].astype(np.float64), poisoned]
    for x in wrong:
        steered = steerer.steer(x, [ANYONE], NOW)
        assert steered.receipts[0].reason is UnsteeredReason.INVALID_CHANGE
        assert steered.activation.tobytes() == x.tobytes()


def test_the_kill_switch_wins_over_every_policy() -> None:
    steered = Steerer(plan(policy(("c-1", OperationKind.ADD, 1.0)), kill_switch=True)).steer(X, [ANYONE] * 6, NOW)
    assert steered.activation is X
    assert {receipt.reason for receipt in steered.receipts} == {UnsteeredReason.KILL_SWITCH}


def test_a_plan_holds_live_policies_of_its_model_whose_concepts_are_all_in_the_dictionary() -> None:
    kept = policy(("c-1", OperationKind.ADD, 1.0))
    lost = policy(("c-1", OperationKind.ADD, 1.0), ("c-gone", OperationKind.ABLATE, 0.0))
    others = [
        lost,
        policy(("c-1", OperationKind.ADD, 1.0), model="another"),
        reverted(kept, reason="x", now=NOW),
        replace(kept, window=Window(end=NOW)),
    ]
    assert [one.ref.policy_id for one in plan(kept, *others).policies] == [kept.id]
    assert suspension(kept, BASIS) == ""
    assert "c-gone is no live concept of the promoted dictionary" in suspension(lost, BASIS)


def test_a_plan_comes_back_from_the_wire_with_the_same_effect_to_the_bit() -> None:
    sent = plan(
        policy(("c-1", OperationKind.ADD, 1.2), ("c-5", OperationKind.SCALE, 0.1), scope=Scope(rollout_percent=33.3)),
        policy(("c-7", OperationKind.SET, 1 / 3)),
    )
    received = plan_from(plan_message(sent))
    verify_plan(received, model="m", model_version="a" * 16)
    here, there = (Steerer(one, SAE).steer(X, [ANYONE] * len(X), NOW) for one in (sent, received))
    assert here.activation.tobytes() == there.activation.tobytes()
    assert here.receipts == there.receipts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"triple": Triple("d" * 16, "b" * 16, "c" * 16)}, "versions never mix"),
        ({"model": "other"}, "versions never mix"),
        ({"triple": Triple("a" * 16, "", "c" * 16)}, "names no SAE"),
        ({"norm_budget": float("nan")}, "norm budget nan"),
        ({"dim": DIM + 1}, "row"),
    ],
)
def test_a_plan_that_must_not_be_applied_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        verify_plan(plan(policy(("c-1", OperationKind.ADD, 1.0)), **change), model="m", model_version="a" * 16)


def test_a_decoder_row_that_is_no_unit_vector_is_refused() -> None:
    scaled = replace(BASIS, w_dec=2 * SAE.w_dec)
    wrong = compile_plan([policy(("c-1", OperationKind.ADD, 1.0))], scaled, revision=1, now=NOW)
    with pytest.raises(InvalidRequestError, match="unit vector"):
        verify_plan(wrong, model="m", model_version="a" * 16)


def test_a_plan_that_was_changed_on_its_way_is_refused() -> None:
    message = plan_message(plan(policy(("c-1", OperationKind.ADD, 1.2))))
    assert len(message.digest) == 64
    assert plan_from(message).revision == 5
    message.policies[0].operations[0].value *= 2
    with pytest.raises(InvalidRequestError, match="changed on its way; ask for the plans again"):
        plan_from(message)
    message.ClearField("digest")  # of a sender that makes none
    assert plan_from(message).revision == 5


@pytest.mark.parametrize("length", [65, 128])
def test_receipts_and_bits_are_those_of_each_row_alone_whatever_the_batch(length: int) -> None:
    random = np.random.default_rng(length)
    w_dec = np.eye(length, dtype=np.float32)
    x: Floats = random.standard_normal((40, length)).astype(np.float32)
    x[7] *= 1e-3  # over the budget
    x[9, 3] = np.inf

    def encode(rows: Floats) -> Codes:
        return Codes(np.tile(np.arange(4), (len(rows), 1)), np.maximum(rows[:, :4], 0))

    basis = replace(BASIS, latents={f"c-{one}": one for one in range(4)}, p95=np.ones(4, np.float32), w_dec=w_dec)
    asked = [("c-0", OperationKind.SCALE, 1.3), ("c-1", OperationKind.ADD, 0.4), ("c-2", OperationKind.CAP, 0.1)]
    compiled = compile_plan([policy(*asked)], basis, revision=1, now=NOW, norm_budget=0.5)
    steerer = Steerer(compiled, encode)
    together = steerer.steer(x, [ANYONE] * 40, NOW)
    assert {receipt.reason for receipt in together.receipts} == {
        UnsteeredReason.STEERED,
        UnsteeredReason.OVER_NORM_BUDGET,
        UnsteeredReason.INVALID_CHANGE,
    }
    for begin, end in [*((row, row + 1) for row in range(40)), (3, 6), (5, 21), (10, 40)]:
        part = steerer.steer(x[begin:end], [ANYONE] * (end - begin), NOW)
        assert part.activation.tobytes() == together.activation[begin:end].tobytes()
        assert part.receipts == together.receipts[begin:end]
