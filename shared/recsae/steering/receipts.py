"""Receipts: what steering did to one response, or why it did nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from recsae.pipeline.triples import Triple

# A plan may roll hundreds of policies out to everyone; a receipt that named them all would cost as much as the list.
MOST_HELD_OUT = 16


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
    NOT_WANTED = "not_wanted"
    NO_CLIENT = "no_client"
    UNREACHABLE = "unreachable"
    BREAKER_OPEN = "breaker_open"
    OVERLOADED = "overloaded"


@dataclass(frozen=True)
class PolicyRef:
    """One revision of one policy."""

    policy_id: str
    revision: int


@dataclass(frozen=True)
class ShadowOutcome:
    """What matching policies in shadow would have made of it: |x'' - x'| beside what was served, and that over |x|.

    `reason` says why they would not have applied all the same; STEERED = they would.
    """

    policies: tuple[PolicyRef, ...]
    delta_norm: float = 0.0
    delta_share: float = 0.0
    reason: UnsteeredReason = UnsteeredReason.STEERED


@dataclass(frozen=True)
class Receipt:
    """`applied` in order of application, or `reason`; `delta_norm` = |x' - x|, `delta_share` = that over |x|.

    `held_out`: policies that would have applied but for their rollout, the first `MOST_HELD_OUT` of them. `shadow`:
    None when none in shadow matched.
    """

    reason: UnsteeredReason
    applied: tuple[PolicyRef, ...] = ()
    plan_revision: int = 0
    triple: Triple = field(default_factory=Triple)
    delta_norm: float = 0.0
    delta_share: float = 0.0
    held_out: tuple[PolicyRef, ...] = ()
    shadow: ShadowOutcome | None = None
