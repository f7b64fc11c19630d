"""What turning a concept does to recommendations, as plain values (docs/method.md, section 7).

Not here: how it is measured (`recsae.concepts.causal`).
"""

from __future__ import annotations

from dataclasses import dataclass

from recsae.concepts.estimates import Estimate


@dataclass(frozen=True)
class DoseEffect:
    """One operation at one dose, on the panel.

    `operation` and `dose` as in a policy: a factor for "scale", strengths for "add", "set" and "cap", 0 for "ablate".
    `facet_log_odds` is the change of the log-odds of the output facet's share of the top 10; `ndcg_kept`,
    `ndcg_kept_inside` and `ndcg_kept_outside` NDCG@10 over the unsteered one, over all targets and those inside and
    outside the facet; `off_target` the share of the top 10 that changed beyond what direct re-ranking by the facet
    changes at an equal share; `lists_changed` the share of panel users whose top 10 changed.
    """

    operation: str
    dose: float
    facet_log_odds: Estimate
    ndcg_kept: Estimate
    ndcg_kept_inside: Estimate
    ndcg_kept_outside: Estimate
    off_target: Estimate
    lists_changed: float


@dataclass(frozen=True)
class SafeRange:
    """Doses of one operation that may be used: `low` to `high` around the dose that changes nothing.

    `limited_by` says what the next dose beyond broke ("ndcg", "off_target"), or "measured" where the grid ended.
    """

    operation: str
    low: float
    high: float
    limited_by: str


@dataclass(frozen=True)
class CausalRecord:
    """Effects of a concept on a fixed panel of `panel_users` users.

    `facet` is the output facet shares are counted of ("" = the promoted items themselves); `agreement` whether input
    and output label name the same facet; `null_percentile` where the effect lies among random latents of like density
    and size of change, 0 to 1.
    """

    facet: str
    panel_users: int
    doses: tuple[DoseEffect, ...]
    safe_ranges: tuple[SafeRange, ...]
    agreement: bool
    null_percentile: float
