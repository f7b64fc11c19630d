"""A plan as an interpreter would send it, and a tap that holds it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from tests.unit.torch_models import DIM

from recsae.pipeline.triples import Triple
from recsae.sdk.torch import SteerContext, Tap
from recsae.steering.delta import Steerer
from recsae.steering.plans import Plan, PlanOperation, PlanPolicy
from recsae.steering.policies import OperationKind, Scope, Window
from recsae.steering.receipts import PolicyRef, UnsteeredReason

VERSION = "a" * 16
ROW = np.eye(DIM, dtype=np.float32)[3]
HISTORIES = torch.tensor([[3, 9, 7, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0], [5, 6, 7, 8, 9, 10, 11, 12]])
LENGTHS = torch.tensor([3, 1, 8])
CONTEXTS = [SteerContext("u-1"), SteerContext("u-2"), SteerContext("u-3")]


def plan(
    hook: str,
    *,
    users: tuple[str, ...] = ("u-2",),
    value: float = 1.5,
    kind: OperationKind = OperationKind.ADD,
    **more: Any,
) -> Plan:
    operations = (PlanOperation(0, kind, value, ROW),)
    policies = (PlanPolicy(PolicyRef("p-1", 1), operations, Scope(user_ids=users), Window(), "salt"),)
    triple = Triple(VERSION, "b" * 16, "c" * 16)
    return Plan(**{"revision": 4, "model": "m", "triple": triple, "policies": policies, "dim": DIM, "hook": hook,
                   "compiled_at": time.time(), "norm_budget": 100.0, **more})  # fmt: skip


def steered_by(tap: Tap, given: Plan | UnsteeredReason) -> Tap:
    """The tap with a plan in its hands, as if the interpreter had sent it."""
    current = Steerer(given) if isinstance(given, Plan) else given
    return tap.apply_plans_of("m", VERSION, lambda: current)
