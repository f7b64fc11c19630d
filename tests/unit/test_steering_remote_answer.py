"""What a recommender takes from an interpreter's answer, and what it does not believe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsae.pipeline.triples import Triple
from recsae.steering.plans import Floats
from recsae.steering.receipts import PolicyRef, Receipt, UnsteeredReason
from recsae.steering.remote_answer import Expected, per_request, used

VERSION = "a" * 16
TRIPLE = Triple(VERSION, "b" * 16, "c" * 16)
EXPECTED = Expected(VERSION, norm_budget=2.0)
X = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)


def steered(change: Floats, **changes: object) -> Receipt:
    norm = float(np.linalg.norm(change))
    receipt = Receipt(UnsteeredReason.STEERED, (PolicyRef("p-1", 1),), 7, TRIPLE, norm, norm / 2)
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


def test_a_request_of_several_rows_shows_the_receipt_of_the_one_changed_most_else_of_its_first() -> None:
    small, large = steered(SMALL), steered(SMALL * 2)
    refused = Receipt(UnsteeredReason.OVER_NORM_BUDGET, triple=TRIPLE)
    found = per_request([NONE, refused, small, large, refused, NONE], [1, 3, 0, 2])
    assert found == (NONE, large, Receipt(UnsteeredReason.NONE_MATCHED), refused)
