"""What turning a concept does to recommendations, as plain values (docs/method.md, section 7).

Effects per dose, the range of doses that may be used, and what a dose spends of the two limits. Not here: how it is
measured (`recsae.concepts.causal`) and who asks (`recsae.steering.safety`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from recsae.concepts.estimates import Estimate

MOST_NDCG_LOSS = 0.05
MOST_OFF_TARGET = 0.10
# What limits a range: a bound that the next dose breaks, or the end of what was measured.
NDCG, OFF_TARGET, MEASURED = "ndcg", "off_target", "measured"
# The dose at which an operation changes nothing. "ablate" and "set" have none.
NEUTRAL = {"add": 0.0, "scale": 1.0}
# Columns of a dose's row in JSON, in this order.
_NUMBERS = ("dose", "lists_changed", "loss_upper", "off_target_upper", "survives", "facet_share")
_ESTIMATES = ("facet_log_odds", "ndcg_kept", "ndcg_kept_inside", "ndcg_kept_outside", "off_target")


@dataclass(frozen=True)
class DoseEffect:
    """One operation at one dose, on the panel.

    `operation` and `dose` as in a policy: a factor for "scale", strengths for "add", "set" and "cap", 0 for "ablate".
    `facet_log_odds` is the change of the log-odds of the output facet's share of the top 10, `facet_share` that share;
    `ndcg_kept`, `ndcg_kept_inside` and `ndcg_kept_outside` NDCG@10 over the unsteered one, over all targets and those
    inside and outside the facet; `off_target` the share of the top 10 that changed beyond what direct re-ranking by the
    facet changes at an equal share; `lists_changed` the share of panel users whose top 10 changed. `loss_upper` and
    `off_target_upper` are simultaneous 95 % bounds of NDCG loss and of `off_target` over all doses of the operation.
    `survives`, of "add": the share of the added strength that the encoder finds in the changed activation.
    """

    operation: str
    dose: float
    facet_log_odds: Estimate
    ndcg_kept: Estimate
    ndcg_kept_inside: Estimate
    ndcg_kept_outside: Estimate
    off_target: Estimate
    lists_changed: float
    loss_upper: float = 1.0
    off_target_upper: float = 1.0
    survives: float = 0.0
    facet_share: float = 0.0

    @property
    def broken(self) -> str:
        """The limit this dose breaks, "" when it keeps both."""
        if not self.loss_upper <= MOST_NDCG_LOSS:
            return NDCG
        return "" if self.off_target_upper <= MOST_OFF_TARGET else OFF_TARGET


@dataclass(frozen=True)
class SafeRange:
    """Doses of one operation that may be used: `low` to `high`, around the dose that changes nothing.

    `limited_by` says what the next dose above broke ("ndcg", "off_target"), or "measured" where the grid ended;
    `limited_below` the same downwards. `empty`: no dose that changes anything may be used.
    """

    operation: str
    low: float
    high: float
    limited_by: str
    limited_below: str = MEASURED
    empty: bool = False


@dataclass(frozen=True)
class Spent:
    """Upper bounds of what an operation costs: NDCG loss and off-target change, both shares."""

    loss: float
    off_target: float


@dataclass(frozen=True)
class CausalRecord:
    """Effects of a concept on a fixed panel of `panel_users` users, the one `panel` names.

    `facet` is the output facet shares are counted of ("" = the promoted items themselves), `facet_share` its share of
    unsteered top 10s; `agreement` whether input and output label name the same facet; `null_percentile` where the
    effect of half a strength added lies among random latents of like density moved as far, 0 to 1, and
    `direction_percentile` where among random directions.
    """

    facet: str
    panel_users: int
    doses: tuple[DoseEffect, ...]
    safe_ranges: tuple[SafeRange, ...]
    agreement: bool
    null_percentile: float
    direction_percentile: float = 0.0
    facet_share: float = 0.0
    panel: str = ""

    def safe_range(self, operation: str) -> SafeRange | None:
        """The range of an operation; None where it was not measured."""
        return next((one for one in self.safe_ranges if one.operation == operation), None)

    def spent(self, operation: str, dose: float) -> Spent:
        """What a measured dose costs at most: on the straight line between the doses beside it.

        Losses grow faster than the dose, so a chord lies above them. Beyond the grid the last dose's bounds are given.
        """
        return spent_at(self.doses, operation, dose)


def spent_at(doses: tuple[DoseEffect, ...], operation: str, dose: float) -> Spent:
    """As `CausalRecord.spent`, for any doses."""
    points = [(one.dose, one.loss_upper, one.off_target_upper) for one in doses if one.operation == operation]
    if not points:
        return Spent(1.0, 1.0)
    if operation in NEUTRAL:
        points.append((NEUTRAL[operation], 0.0, 0.0))
    points.sort()
    for (low, *at_low), (high, *at_high) in pairwise(points):
        if low <= dose <= high:
            share = (dose - low) / (high - low) if high > low else 0.0
            loss, off_target = (max(0.0, a + share * (b - a)) for a, b in zip(at_low, at_high, strict=True))
            return Spent(loss, off_target)
    nearest = points[0] if dose < points[0][0] else points[-1]
    return Spent(max(0.0, nearest[1]), max(0.0, nearest[2]))


def range_of(operation: str, effects: tuple[DoseEffect, ...]) -> SafeRange:
    """The largest contiguous range of measured doses, around the one that changes nothing, that keeps both limits.

    "set" and "ablate" have no such dose and begin at their least one; a "cap" begins at its largest.
    """
    ordered = sorted((one for one in effects if one.operation == operation), key=lambda one: one.dose)
    if operation in NEUTRAL:
        neutral = NEUTRAL[operation]
        above, up = _reach([one for one in ordered if one.dose > neutral])
        below, down = _reach([one for one in reversed(ordered) if one.dose < neutral])
        low, high = (below[-1] if below else neutral), (above[-1] if above else neutral)
        return SafeRange(operation, low, high, up, down, empty=not above and not below)
    if operation == "cap":
        kept, why = _reach(list(reversed(ordered)))
        top = ordered[-1].dose
        return SafeRange(operation, kept[-1] if kept else top, top, MEASURED if kept else why, why, empty=not kept)
    kept, why = _reach(ordered)
    start = ordered[0].dose
    return SafeRange(operation, start, kept[-1] if kept else start, why, MEASURED if kept else why, empty=not kept)


def _reach(outwards: list[DoseEffect]) -> tuple[list[float], str]:
    """Doses in turn until one breaks a limit, and what stopped them."""
    kept: list[float] = []
    for one in outwards:
        if one.broken:
            return kept, one.broken
        kept.append(one.dose)
    return kept, MEASURED


def doses_as_rows(doses: tuple[DoseEffect, ...]) -> list[list[Any]]:
    """Doses as rows of numbers: the operation, six plain figures, then value, low and high of five estimates.

    Two dozen doses of a thousand concepts would repeat field names half a million times.
    """
    rows = []
    for one in doses:
        numbers = [getattr(one, name) for name in _NUMBERS]
        for name in _ESTIMATES:
            estimate: Estimate = getattr(one, name)
            numbers += [estimate.value, estimate.low, estimate.high]
        rows.append([one.operation, *(float(f"{number:.4g}") for number in numbers)])
    return rows


def doses_from_rows(rows: list[list[Any]]) -> tuple[DoseEffect, ...]:
    """The doses `doses_as_rows` was given, to four digits."""
    doses = []
    for operation, *numbers in rows:
        fields: dict[str, Any] = {"operation": operation}
        fields |= dict(zip(_NUMBERS, numbers, strict=False))
        at = len(_NUMBERS)
        for name in _ESTIMATES:
            fields[name] = Estimate(*numbers[at : at + 3])
            at += 3
        doses.append(DoseEffect(**fields))
    return tuple(doses)
