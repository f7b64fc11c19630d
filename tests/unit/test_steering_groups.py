"""Steering of requests that own several rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsae.pipeline.triples import Triple
from recsae.steering import outcomes
from recsae.steering.delta import Steerer
from recsae.steering.matching import SteerContext
from recsae.steering.plans import Plan, PlanOperation, PlanPolicy
from recsae.steering.policies import OperationKind, Scope, Window
from recsae.steering.receipts import PolicyRef, Receipt, UnsteeredReason

ROW = np.array([0, 1, 0], np.float32)


def _plan(value: float, norm_budget: float = 2.0) -> Plan:
    operation = PlanOperation(0, OperationKind.ADD, value, ROW)
    policy = PlanPolicy(PolicyRef("p", 1), (operation,), Scope(user_ids=("anna",)), Window(), salt="")
    return Plan(7, "m", Triple("m" * 16), (policy,), 3, "h", 0.0, norm_budget)


def test_every_row_of_a_request_is_steered_and_the_request_has_one_receipt() -> None:
    x = np.ones((5, 3), np.float32)
    steered = Steerer(_plan(0.5)).steer_groups(x, [SteerContext("anna"), SteerContext("bob")], [3, 2], now=1.0)
    assert (steered.activation[:3] == [1, 1.5, 1]).all()
    assert steered.activation[3:].tobytes() == x[3:].tobytes()
    assert [receipt.reason for receipt in steered.receipts] == [UnsteeredReason.STEERED, UnsteeredReason.NONE_MATCHED]
    assert steered.receipts[0].delta_norm == 0.5


def test_rows_are_steered_as_each_would_be_alone() -> None:
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    together = Steerer(_plan(0.3)).steer_groups(x, [SteerContext("anna")], [6], now=1.0).activation
    alone = [Steerer(_plan(0.3)).steer(x[[row]], [SteerContext("anna")], now=1.0).activation for row in range(6)]
    assert together.tobytes() == np.concatenate(alone).tobytes()


def test_a_row_over_the_norm_budget_stays_and_the_others_are_steered() -> None:
    x = np.array([[10, 0, 0], [0.1, 0, 0]], np.float32)
    steered = Steerer(_plan(1.0, norm_budget=1.0)).steer_groups(x, [SteerContext("anna")], [2], now=1.0)
    assert steered.activation.tolist() == [[10, 1, 0], [np.float32(0.1), 0, 0]]
    assert steered.receipts[0].reason is UnsteeredReason.STEERED
    only = Steerer(_plan(1.0, norm_budget=1.0)).steer_groups(x[1:], [SteerContext("anna")], [1], now=1.0)
    assert only.receipts[0].reason is UnsteeredReason.OVER_NORM_BUDGET


def test_no_match_and_no_rows_leave_the_very_array() -> None:
    x = np.ones((2, 3), np.float32)
    steered = Steerer(_plan(1.0)).steer_groups(x, [SteerContext("bob"), SteerContext("carl")], [2, 0], now=1.0)
    assert steered.activation is x
    mixed = Steerer(_plan(1.0)).steer_groups(x, [SteerContext("anna"), SteerContext("anna")], [2, 0], now=1.0)
    assert [one.reason for one in mixed.receipts] == [UnsteeredReason.STEERED, UnsteeredReason.NONE_MATCHED]


def test_a_request_of_many_rows_makes_one_receipt_not_one_per_row(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[Receipt]()

    def counted(*facts: Any, **more: Any) -> Receipt:
        made.append(Receipt(*facts, **more))
        return made[-1]

    monkeypatch.setattr(outcomes, "Receipt", counted)
    x = np.ones((2_000, 3), np.float32)
    steered = Steerer(_plan(0.5)).steer_groups(x, [SteerContext("anna")] * 2, [500, 1_500], now=1.0)
    assert (steered.activation[:, 1] == 1.5).all()
    assert len(made) <= 4
