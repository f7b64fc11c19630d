"""What a recommender takes from an interpreter's answer, and what it does not believe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recsae.pipeline.triples import Triple
from recsae.steering.plans import Floats
from recsae.steering.receipts import PolicyRef, Receipt, ShadowOutcome, UnsteeredReason
from recsae.steering.remote_answer import Expected, per_request, used

VERSION = "a" * 16
TRIPLE = Triple(VERSION, "b" * 16, "c" * 16)
EXPECTED = Expected(VERSION, norm_budget=2.0)
LENGTH = 2.0
X = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
X *= LENGTH / np.linalg.norm(X, axis=1, keepdims=True)


def steered(change: Floats, **changes: object) -> Receipt:
    norm = float(np.linalg.norm(change))
    receipt = Receipt(UnsteeredReason.STEERED, (PolicyRef("p-1", 1),), 7, TRIPLE, norm, norm / LENGTH)
    return replace(receipt, **changes)  # type: ignore[arg-type]


def answer(row: int, change: Floats) -> Floats:
    out = X.copy()
    out[row] += change
    return out


NONE = Receipt(UnsteeredReason.NONE_MATCHED, plan_revision=7, triple=TRIPLE)
SMALL = np.full(8, 0.1, np.float32)


def test_a_steered_row_is_taken_and_its_neighbours_stay_the_callers_own_whatever_came_for_them() -> None:
    came = answer(1, SMALL)
    came[[0, 2, 3]] += 1  # nobody's receipt says so
    receipts = [NONE, steered(SMALL), NONE, NONE]
    out, found = used(X, came, receipts, EXPECTED)
    assert np.array_equal(out[1], came[1])
    assert out[[0, 2, 3]].tobytes() == X[[0, 2, 3]].tobytes()
    assert found == receipts


def test_where_nothing_was_steered_the_very_array_comes_back() -> None:
    out, _ = used(X, X + 1, [NONE] * 4, EXPECTED)
    assert out is X


@pytest.mark.parametrize(
    ("change", "receipt", "reason"),
    [
        (SMALL * np.nan, steered(SMALL), UnsteeredReason.INVALID_CHANGE),
        (SMALL * np.inf, steered(SMALL, delta_norm=float("inf")), UnsteeredReason.INVALID_CHANGE),
        (SMALL * 1000, steered(SMALL * 1000), UnsteeredReason.INVALID_CHANGE),
        (SMALL * 5, steered(SMALL), UnsteeredReason.INVALID_CHANGE),
        (SMALL, steered(SMALL, applied=()), UnsteeredReason.INVALID_CHANGE),
        (SMALL, Receipt(UnsteeredReason.STEERED), UnsteeredReason.INVALID_CHANGE),
        (SMALL, steered(SMALL, triple=Triple(VERSION)), UnsteeredReason.INVALID_CHANGE),
        (SMALL, steered(SMALL, triple=replace(TRIPLE, model_version="f" * 16)), UnsteeredReason.VERSION_MISMATCH),
        (SMALL, replace(NONE, triple=replace(TRIPLE, model_version="f" * 16)), UnsteeredReason.VERSION_MISMATCH),
    ],
    ids=[
        *("not a number", "not finite", "over the budget", "longer than it says", "by nobody", "an empty receipt"),
        *("of no SAE", "of another version", "unsteered by another version"),
    ],
)
def test_what_cannot_be_believed_leaves_the_row_and_says_why(
    change: Floats, receipt: Receipt, reason: UnsteeredReason
) -> None:
    out, found = used(X, answer(2, change), [NONE, NONE, receipt, NONE], EXPECTED)
    assert out is X
    assert found[2].reason is reason
    assert not found[2].applied
    assert found[2].triple.model_version in ("", VERSION)


@pytest.mark.parametrize("share", [5.0, -1.0, float("nan"), float("inf")])
def test_a_receipt_shows_the_share_that_was_changed_whatever_came_for_it(share: float) -> None:
    out, found = used(X, answer(2, SMALL), [NONE, NONE, steered(SMALL, delta_share=share), NONE], EXPECTED)
    assert out is not X
    assert found[2].reason is UnsteeredReason.STEERED
    assert found[2].delta_share == pytest.approx(found[2].delta_norm / LENGTH, rel=1e-4)


@pytest.mark.parametrize(
    "lie", [{"applied": (PolicyRef("p-1", 1),)}, {"delta_norm": 3.0}, {"delta_share": float("nan")}]
)
def test_a_receipt_without_steering_claims_none(lie: dict[str, Any]) -> None:
    held_out = (PolicyRef("p-2", 4),)
    out, found = used(X, X.copy(), [NONE, NONE, NONE, replace(NONE, held_out=held_out, **lie)], EXPECTED)
    assert out is X
    assert found[3] == replace(NONE, held_out=held_out)


@pytest.mark.parametrize("lie", [{"delta_norm": float("nan")}, {"delta_share": float("inf")}, {"delta_share": -1.0}])
def test_a_shadow_of_no_size_there_is_says_that_it_is_invalid(lie: dict[str, Any]) -> None:
    shadow = ShadowOutcome((PolicyRef("p-3", 1),), 1.0, 0.5)
    receipts = [replace(NONE, shadow=shadow), NONE, NONE, replace(NONE, shadow=replace(shadow, **lie))]
    _, found = used(X, X.copy(), receipts, EXPECTED)
    assert found[0] == receipts[0]
    assert found[3].shadow == ShadowOutcome(shadow.policies, reason=UnsteeredReason.INVALID_CHANGE)


def test_a_request_of_several_rows_shows_the_receipt_of_the_one_changed_most_else_of_its_first() -> None:
    small, large = steered(SMALL), steered(SMALL * 2)
    refused = Receipt(UnsteeredReason.OVER_NORM_BUDGET, triple=TRIPLE)
    found = per_request([NONE, refused, small, large, refused, NONE], [1, 3, 0, 2])
    assert found == (NONE, large, Receipt(UnsteeredReason.NONE_MATCHED), refused)
