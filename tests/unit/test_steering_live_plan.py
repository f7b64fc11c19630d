"""Plans applied inside a live model: which rows are read, what becomes of a subject's several rows."""

from __future__ import annotations

import numpy as np
import pytest

from recsae.errors import InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.steering.delta import Steerer
from recsae.steering.live_plan import LivePlan, check_rows
from recsae.steering.matching import SteerContext
from recsae.steering.plans import Floats, Plan, PlanOperation, PlanPolicy
from recsae.steering.policies import OperationKind, Scope, Window
from recsae.steering.receipts import PolicyRef, UnsteeredReason

VERSION = "a" * 16
X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
ROW = np.array([0, 1, 0, 0], np.float32)


def live(**changes: object) -> LivePlan:
    operations = (PlanOperation(0, OperationKind.ADD, 0.5, ROW),)
    policies = (PlanPolicy(PolicyRef("p", 1), operations, Scope(user_ids=("u-1",)), Window(), "salt"),)
    facts = {"norm_budget": 5.0, **changes}
    plan = Plan(3, "m", Triple(VERSION, "b" * 16, "c" * 16), policies, 4, "h", 0.0, **facts)  # type: ignore[arg-type]
    return LivePlan(lambda: Steerer(plan), VERSION, "h")


def never(rows: list[int]) -> Floats:
    raise AssertionError(f"rows {rows} were read")


def test_only_rows_that_a_policy_holds_for_are_read() -> None:
    read: list[int] = []

    def reader(rows: list[int]) -> Floats:
        read.extend(rows)
        return X[rows]

    change = live().change([SteerContext("u-0"), SteerContext("u-1"), SteerContext("u-2")], reader)
    assert read == [1]
    assert change.rows == (1,)
    np.testing.assert_array_equal(change.values, (X[1:2] + np.float32(0.5) * ROW).astype(np.float32))


def test_nothing_is_read_where_nothing_is_changed() -> None:
    stranger, known = [SteerContext("u-0")], [SteerContext("u-1")]
    assert live().change(stranger, never).receipts[0].reason is UnsteeredReason.NONE_MATCHED
    assert live(kill_switch=True).change(known, never).receipts[0].reason is UnsteeredReason.KILL_SWITCH
    absent = LivePlan(lambda: UnsteeredReason.NO_PLAN, VERSION, "h").change(known, never)
    assert absent.receipts[0].reason is UnsteeredReason.NO_PLAN
    assert absent.receipts[0].triple.model_version == VERSION
    elsewhere = LivePlan(live()._current, VERSION, "elsewhere").change(known, never)
    assert elsewhere.receipts[0].reason is UnsteeredReason.VERSION_MISMATCH
    assert "hook 'h'" in str(elsewhere.error)


def test_rows_of_a_subject_follow_each_other_and_share_its_receipt() -> None:
    contexts = [SteerContext("u-0"), SteerContext("u-1")]
    change = live().change(contexts, lambda rows: X[rows], rows_each=3)
    assert change.rows == (3, 4, 5)
    assert [receipt.reason for receipt in change.receipts] == [UnsteeredReason.NONE_MATCHED, UnsteeredReason.STEERED]


def test_a_row_over_its_budget_stays_and_the_others_of_its_subject_are_steered() -> None:
    x = X.copy()
    x[4] = 1e-3
    change = live(norm_budget=2.0).change([SteerContext("u-0"), SteerContext("u-1")], lambda rows: x[rows], rows_each=3)
    assert change.rows == (3, 5)
    assert change.receipts[1].reason is UnsteeredReason.STEERED


def test_an_empty_batch_is_unsteered() -> None:
    assert live().change([SteerContext("u-1")], never, rows_each=0).receipts[0].reason is UnsteeredReason.NONE_MATCHED
    assert live().change([], never).receipts == ()


def test_a_reader_that_fails_leaves_the_receipt_to_say_so() -> None:
    change = live().change([SteerContext("u-1")], never)
    assert change.rows == ()
    assert change.receipts[0].reason is UnsteeredReason.ERROR
    assert isinstance(change.error, AssertionError)


def test_there_is_one_context_per_row() -> None:
    check_rows(3, 3)
    with pytest.raises(InvalidRequestError, match="2 steering contexts came for 3 rows"):
        check_rows(2, 3)
