"""Receipts: what steering did to one response, or why it did nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from recsae.pipeline.triples import Triple


class UnsteeredReason(StrEnum):
    """Why a response carries no steering; NONE_MATCHED is the normal state. STEERED = it carries some."""

    STEERED = "steered"
    NONE_MATCHED = "none_matched"
    KILL_SWITCH = "kill_switch"
    NO_PLAN = "no_plan"
    PLAN_TOO_OLD = "plan_too_old"
    VERSION_MISMATCH = "version_mismatch"
    NO_SAE_FOR_MODEL = "no_sae_for_model"
    OVER_NORM_BUDGET = "over_norm_budget"
    INVALID_CHANGE = "invalid_change"
    DEADLINE = "deadline"
    ERROR = "error"


@dataclass(frozen=True)
class PolicyRef:
    """One revision of one policy."""

    policy_id: str
    revision: int


@dataclass(frozen=True)
class Receipt:
    """`applied` in order of application, or `reason`; `delta_norm` = |x' - x|, `delta_share` = that over |x|."""

    reason: UnsteeredReason
    applied: tuple[PolicyRef, ...] = ()
    plan_revision: int = 0
    triple: Triple = field(default_factory=Triple)
    delta_norm: float = 0.0
    delta_share: float = 0.0
