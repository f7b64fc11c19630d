"""Applies a plan to activations, keeping the error: x' = x + sum_j (z'_j - z_j) W_dec[j] (docs/method.md, section 2).

The one function behind in-process steering and the Steer RPC. It never raises for a row: whatever is wrong leaves
that row as it was, with the reason in its receipt. A row's bits depend neither on its neighbours nor on the batch size;
rows without a matching policy are never touched. Not here: which plan is in force (`follower`), where z comes from
(`encoder`), the arithmetic of a set of policies (`recipes`), whether a change may be used (`judging`) and what receipts
say of it (`outcomes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from recsae.steering.groups import Group, Work, group_of
from recsae.steering.judging import Judged, judged
from recsae.steering.matching import NO_MATCH, Match, Matcher, SteerContext
from recsae.steering.outcomes import misfit, receipt_of, refuse, refuse_shadow, tell, tell_shadow
from recsae.steering.plans import Floats, Plan, PlanOperation, PlanPolicy
from recsae.steering.receipts import PolicyRef, Receipt, UnsteeredReason
from recsae.steering.recipes import Doubles, LatentCodes, Recipe, latent_values, recipe_of, target_values

__all__ = ["Encode", "LatentCodes", "Steered", "Steerer", "latent_values", "target_values", "unsteered"]

Encode = Callable[[Floats], LatentCodes]

# Recipes kept, a row of float64 each; past that they are forgotten and made again.
_RECIPES = 512


@dataclass(frozen=True)
class Steered:
    """`activation` float32 [n, d] (the very array given when no row changed), one receipt per request.

    `error` is what went wrong unforeseen, for the log; the rows concerned say ERROR. `shadows`: by request whose
    receipt has a shadow that would have applied, its rows float32 [m, d] as they would have been with it.
    """

    activation: Floats
    receipts: tuple[Receipt, ...]
    error: Exception | None = None
    shadows: Mapping[int, Floats] = field(default_factory=dict)


class Steerer:
    """Matches and applies one plan. Safe to call from several threads."""

    def __init__(self, plan: Plan, encode: Encode | None = None) -> None:
        """`encode` is the full encoder of the plan's SAE; None leaves rows unsteered whose operations read z."""
        self.plan = plan
        self.matcher = Matcher(plan.policies)
        self._encode = encode
        self._none = receipt_of(plan, UnsteeredReason.NONE_MATCHED)
        self._work: dict[Match, Work] = {}
        self._wide: dict[PlanOperation, Doubles] = {}

    def match(self, context: SteerContext, now: float) -> tuple[PlanPolicy, ...]:
        """Live policies that hold for a request at `now` (seconds since the epoch), in the order of application."""
        return self.matcher.match(context, now)

    def steer(self, x: Floats, contexts: Sequence[SteerContext], now: float) -> Steered:
        """Matches and applies for activations float32 [n, d] and the context of each row."""
        return self._steer(x, contexts, None, now)

    def steer_groups(self, x: Floats, contexts: Sequence[SteerContext], sizes: Sequence[int], now: float) -> Steered:
        """As `steer`, where request i owns the next `sizes[i]` rows of `x`: matched once, with one receipt.

        A row that may not be changed stays as it is and the others are changed all the same; the receipt is that of
        the row changed most, or says why none was.
        """
        return self._steer(x, contexts, sizes, now)

    def apply(self, x: Floats, matched: Sequence[Match], sizes: Sequence[int] | None = None) -> Steered:
        """Applies to each row of `x` float32 [n, d] what was matched for it; rows with no policy stay bit for bit."""
        requests_of: dict[Match, list[int]] = {}
        for request, match in enumerate(matched):
            if match is not NO_MATCH:
                requests_of.setdefault(match, []).append(request)
        receipts = [self._none] * len(matched)
        rows = len(matched) if sizes is None else sum(sizes)
        if x.ndim != 2 or x.shape != (rows, self.plan.dim) or x.dtype != np.float32:
            for match, requests in requests_of.items():
                for request in requests:
                    owns_rows = sizes is None or sizes[request]
                    receipts[request] = misfit(self.plan, match) if owns_rows else self.untouched(match)
            return Steered(x, tuple(receipts))
        groups = []
        for match, requests in requests_of.items():
            work = self._work.get(match) or self._work_of(match)
            for request in requests:
                receipts[request] = work.none
            if work.live is not None or work.together is not None:
                group = group_of(work, requests, len(matched), sizes)
                if group.ends[-1]:
                    groups.append(group)
        if not groups:
            return Steered(x, tuple(receipts))
        return self._apply(x, groups, receipts)

    def untouched(self, match: Match) -> Receipt:
        """The receipt of a request without rows to change, which may be held out all the same."""
        return replace(self._none, held_out=match.held_out) if match.held_out else self._none

    def _steer(self, x: Floats, contexts: Sequence[SteerContext], sizes: Sequence[int] | None, now: float) -> Steered:
        if self.plan.kill_switch:
            return unsteered(x, UnsteeredReason.KILL_SWITCH, self.plan, rows=len(contexts))
        if not self.plan.policies:
            return Steered(x, (self._none,) * len(contexts))
        find = self.matcher.find
        return self.apply(x, [find(context, now) for context in contexts], sizes)

    def _apply(self, x: Floats, groups: Sequence[Group], receipts: list[Receipt]) -> Steered:
        reading = [group for group in groups if group.work.reads_latents]
        codes, error = self._codes(x, reading) if reading else (None, None)
        out, read, shadows = x, 0, dict[int, Floats]()
        for group in groups:
            own = x if group.rows is None else x[group.rows]
            latents = _NO_LATENTS
            if group.work.reads_latents:
                latents = _Part(codes, read, read + len(own))
                read = latents.end
            served = own
            if group.work.live is not None:
                found = self._changed(own, group.work.live, latents)
                if found is None:
                    refuse(self.plan, group, UnsteeredReason.ERROR, receipts)
                else:
                    tell(self.plan, group, group.work.live, found, receipts)
                    served = found.used(own)
                    out = served if group.rows is None else _with_rows(x, out, group.rows, own, served)
            if group.work.together is not None:
                found = self._changed(own, group.work.together, latents)
                if found is None:
                    refuse_shadow(group, UnsteeredReason.ERROR, receipts)
                else:
                    would_be = found.used(own)
                    tell_shadow(group, found, served, would_be, receipts)
                    for request, begin, end in group.spans:
                        shadow = receipts[request].shadow
                        if shadow is not None and shadow.reason is UnsteeredReason.STEERED:
                            shadows[request] = would_be[begin:end]
        return Steered(out, tuple(receipts), error, shadows)

    def _changed(self, own: Floats, recipe: Recipe, latents: _Part) -> Judged | None:
        """Rows with what a recipe does to them; None when their latents are needed and not there."""
        if not recipe.reads_latents:
            return judged(own, recipe.added, [recipe.norm] * len(own), self.plan.norm_budget)
        if latents.codes is None:
            return None
        change, norms = recipe.change(latents.codes, latents.begin, latents.end)
        return judged(own, change, norms, self.plan.norm_budget)

    def _codes(self, x: Floats, groups: Sequence[Group]) -> tuple[LatentCodes | None, Exception | None]:
        """The latents of the rows that need them; the error when there is no encoder or it failed."""
        if self._encode is None:
            return None, RuntimeError(f"no encoder of SAE {self.plan.triple.sae_version} is loaded")
        reading = x if groups[0].rows is None else x[[row for group in groups for row in group.rows or ()]]
        try:
            codes = self._encode(reading)
        except Exception as error:
            return None, error
        if codes.values.shape[:1] != (len(reading),) or codes.indices.shape != codes.values.shape:
            return None, ValueError(f"the encoder returned {codes.values.shape} values for {len(reading)} rows")
        return codes, None

    def _work_of(self, match: Match) -> Work:
        together, shadow = None, tuple[PolicyRef, ...]()
        if match.shadow:
            together = recipe_of(match.together, self.plan.dim, self._row)
            shadowed = {policy.ref for policy in match.shadow}
            shadow = tuple(ref for ref in together.applied if ref in shadowed)
        live = recipe_of(match.live, self.plan.dim, self._row) if match.live else None
        work = Work(live, together if shadow else None, shadow, self.untouched(match))
        if len(self._work) >= _RECIPES:
            self._work = {}
        self._work[match] = work
        return work

    def _row(self, operation: PlanOperation) -> Doubles:
        row = self._wide.get(operation)
        if row is None:
            row = self._wide[operation] = operation.decoder_row.astype(np.float64)
        return row


@dataclass(frozen=True, eq=False)
class _Part:
    """Rows begin..end-1 of the latents read for a batch; None when there are none."""

    codes: LatentCodes | None
    begin: int
    end: int


_NO_LATENTS = _Part(None, 0, 0)


def unsteered(x: Floats, reason: UnsteeredReason, plan: Plan | None = None, *, rows: int | None = None) -> Steered:
    """Every row as it was, with one reason; `rows` when `x` cannot be trusted to say how many there are."""
    receipt = Receipt(reason) if plan is None else receipt_of(plan, reason)
    return Steered(x, (receipt,) * (len(x) if rows is None else rows))


def _with_rows(x: Floats, out: Floats, rows: list[int], own: Floats, steered: Floats) -> Floats:
    """`out` with some rows steered: a copy of `x` from the first change on."""
    if steered is own:
        return out
    out = x.copy() if out is x else out
    out[rows] = steered
    return out
