"""Applies a plan to activations, keeping the error: x' = x + sum_j (z'_j - z_j) W_dec[j] (docs/method.md, section 2).

The one function behind in-process steering and the Steer RPC. It never raises for a row: whatever is wrong leaves
that row as it was, with the reason in its receipt. A row's bits depend neither on its neighbours nor on the batch size;
rows without a matching policy are never touched. Not here: which plan is in force (`follower`), where z comes from
(`encoder`), the arithmetic of a set of policies (`recipes`) and whether a change may be used (`judging`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np

from recsae.steering.judging import Judged, judged
from recsae.steering.matching import NO_MATCH, Match, Matcher, SteerContext
from recsae.steering.plans import Floats, Plan, PlanOperation, PlanPolicy
from recsae.steering.receipts import PolicyRef, Receipt, ShadowOutcome, UnsteeredReason
from recsae.steering.recipes import Doubles, LatentCodes, Recipe, latent_values, recipe_of, target_values

__all__ = ["Encode", "LatentCodes", "Steered", "Steerer", "latent_values", "target_values", "unsteered"]

Encode = Callable[[Floats], LatentCodes]

# Recipes kept, a row of float64 each; past that they are forgotten and made again.
_RECIPES = 1_024


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


@dataclass(frozen=True, eq=False)
class _Work:
    """What is to be done where a match holds: `live` and, with shadow policies that would apply, all `together`."""

    live: Recipe | None
    together: Recipe | None
    shadow: tuple[PolicyRef, ...]
    none: Receipt

    @property
    def reads_latents(self) -> bool:
        return any(recipe is not None and recipe.reads_latents for recipe in (self.live, self.together))


@dataclass(frozen=True, eq=False)
class _Group:
    """Requests that one match holds for: their rows, None = all there are, and where those of each begin and end."""

    work: _Work
    requests: list[int]
    rows: list[int] | None
    ends: Sequence[int]

    @property
    def spans(self) -> Iterator[tuple[int, int, int]]:
        """Each request that has rows, and where they begin and end among those of the group."""
        begin = 0
        for request, end in zip(self.requests, self.ends, strict=True):
            if end > begin:
                yield request, begin, end
            begin = end


class Steerer:
    """Matches and applies one plan. Safe to call from several threads."""

    def __init__(self, plan: Plan, encode: Encode | None = None) -> None:
        """`encode` is the full encoder of the plan's SAE; None leaves rows unsteered whose operations read z."""
        self.plan = plan
        self.matcher = Matcher(plan.policies)
        self._encode = encode
        self._none = _receipt(plan, UnsteeredReason.NONE_MATCHED)
        self._work: dict[Match, _Work] = {}
        self._wide: dict[PlanOperation, Doubles] = {}

    def match(self, context: SteerContext, now: float) -> tuple[PlanPolicy, ...]:
        """Live policies that hold for a request at `now` (seconds since the epoch), in the order of application."""
        return self.matcher.match(context, now).live

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
        groups = []
        for match, requests in requests_of.items():
            work = self._work.get(match) or self._work_of(match)
            for request in requests:
                receipts[request] = work.none
            if work.live is not None or work.together is not None:
                group = _group(work, requests, len(matched), sizes)
                if group.ends[-1]:
                    groups.append(group)
        if not groups:
            return Steered(x, tuple(receipts))
        rows = len(matched) if sizes is None else sum(sizes)
        if x.ndim != 2 or x.shape != (rows, self.plan.dim) or x.dtype != np.float32:
            for group in groups:
                self._refuse(group, UnsteeredReason.INVALID_CHANGE, receipts)
                self._refuse_shadow(group, UnsteeredReason.INVALID_CHANGE, receipts)
            return Steered(x, tuple(receipts))
        return self._apply(x, groups, receipts)

    def _steer(self, x: Floats, contexts: Sequence[SteerContext], sizes: Sequence[int] | None, now: float) -> Steered:
        if self.plan.kill_switch:
            return unsteered(x, UnsteeredReason.KILL_SWITCH, self.plan, rows=len(contexts))
        if not self.plan.policies:
            return Steered(x, (self._none,) * len(contexts))
        match = self.matcher.match
        return self.apply(x, [match(context, now) for context in contexts], sizes)

    def _apply(self, x: Floats, groups: Sequence[_Group], receipts: list[Receipt]) -> Steered:
        codes, error = self._codes(x, [group for group in groups if group.work.reads_latents])
        out, read, shadows = x, 0, dict[int, Floats]()
        for group in groups:
            own = x if group.rows is None else x[group.rows]
            latents = _Part(codes, read, read + len(own))
            read = latents.end if group.work.reads_latents else read
            served = own
            if group.work.live is not None:
                found = self._changed(own, group.work.live, latents)
                if found is None:
                    self._refuse(group, UnsteeredReason.ERROR, receipts)
                else:
                    self._tell(group, group.work.live, found, receipts)
                    served = found.used(own)
                    out = served if group.rows is None else _with_rows(x, out, group.rows, own, served)
            if group.work.together is not None:
                found = self._changed(own, group.work.together, latents)
                if found is None:
                    self._refuse_shadow(group, UnsteeredReason.ERROR, receipts)
                else:
                    self._tell_shadow(group, found, served, found.used(own), receipts, shadows)
        return Steered(out, tuple(receipts), error, shadows)

    def _changed(self, own: Floats, recipe: Recipe, latents: _Part) -> Judged | None:
        """Rows with what a recipe does to them; None when their latents are needed and not there."""
        if not recipe.reads_latents:
            return judged(own, recipe.added, np.full(len(own), recipe.norm), self.plan.norm_budget)
        if latents.codes is None:
            return None
        change, norms = recipe.change(latents.codes, latents.begin, latents.end)
        return judged(own, change, norms, self.plan.norm_budget)

    def _tell(self, group: _Group, recipe: Recipe, found: Judged, receipts: list[Receipt]) -> None:
        held_out = group.work.none.held_out
        for request, begin, end in group.spans:
            row = found.telling(begin, end)
            reason = found.reason(row)
            if reason is not UnsteeredReason.STEERED:
                receipts[request] = _receipt(self.plan, reason, (), 0.0, 0.0, held_out)
                continue
            norm = float(found.norms[row])
            receipts[request] = _receipt(self.plan, reason, recipe.applied, norm, found.share(row, norm), held_out)

    def _tell_shadow(
        self,
        group: _Group,
        found: Judged,
        served: Floats,
        would_be: Floats,
        receipts: list[Receipt],
        shadows: dict[int, Floats],
    ) -> None:
        """Writes what shadow policies would have made of rows `served` as they are."""
        moved = would_be.astype(np.float64) - served
        norms = np.sqrt(np.add.reduce(moved * moved, axis=1))
        for request, begin, end in group.spans:
            reason = found.reason(found.telling(begin, end))
            norm = share = 0.0
            if reason is UnsteeredReason.STEERED:
                row = begin + int(norms[begin:end].argmax())
                norm = float(norms[row])
                share = found.share(row, norm)
                shadows[request] = would_be[begin:end]
            shadow = ShadowOutcome(group.work.shadow, norm, share, reason)
            receipts[request] = replace(receipts[request], shadow=shadow)

    def _refuse(self, group: _Group, reason: UnsteeredReason, receipts: list[Receipt]) -> None:
        if group.work.live is not None:
            refused = _receipt(self.plan, reason, (), 0.0, 0.0, group.work.none.held_out)
            for request, _, _ in group.spans:
                receipts[request] = refused

    def _refuse_shadow(self, group: _Group, reason: UnsteeredReason, receipts: list[Receipt]) -> None:
        if group.work.together is not None:
            for request, _, _ in group.spans:
                shadow = ShadowOutcome(group.work.shadow, reason=reason)
                receipts[request] = replace(receipts[request], shadow=shadow)

    def _codes(self, x: Floats, groups: Sequence[_Group]) -> tuple[LatentCodes | None, Exception | None]:
        """The latents of the rows that need them; the error when there is no encoder or it failed."""
        if not groups:
            return None, None
        if self._encode is None:
            return None, RuntimeError(f"no encoder of SAE {self.plan.triple.sae_version} is loaded")
        if groups[0].rows is None:
            reading = x
        else:
            reading = x[[row for group in groups for row in group.rows or ()]]
        try:
            codes = self._encode(reading)
        except Exception as error:
            return None, error
        if codes.values.shape[:1] != (len(reading),) or codes.indices.shape != codes.values.shape:
            return None, ValueError(f"the encoder returned {codes.values.shape} values for {len(reading)} rows")
        return codes, None

    def _work_of(self, match: Match) -> _Work:
        together, shadow = None, tuple[PolicyRef, ...]()
        if match.shadow:
            together = recipe_of(match.together, self.plan.dim, self._row)
            shadowed = {policy.ref for policy in match.shadow}
            shadow = tuple(ref for ref in together.applied if ref in shadowed)
        none = self._none if not match.held_out else replace(self._none, held_out=match.held_out)
        live = recipe_of(match.live, self.plan.dim, self._row) if match.live else None
        work = _Work(live, together if shadow else None, shadow, none)
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


def unsteered(x: Floats, reason: UnsteeredReason, plan: Plan | None = None, *, rows: int | None = None) -> Steered:
    """Every row as it was, with one reason; `rows` when `x` cannot be trusted to say how many there are."""
    receipt = Receipt(reason) if plan is None else _receipt(plan, reason)
    return Steered(x, (receipt,) * (len(x) if rows is None else rows))


def _group(work: _Work, requests: list[int], of: int, sizes: Sequence[int] | None) -> _Group:
    """Some of `of` requests; request i owns the next `sizes[i]` rows, None = one each."""
    if sizes is None:
        return _Group(work, requests, None if len(requests) == of else requests, range(1, len(requests) + 1))
    ends = list(accumulate(sizes[one] for one in requests))
    if len(requests) == of:
        return _Group(work, requests, None, ends)
    stops = list(accumulate(sizes))
    return _Group(work, requests, [row for one in requests for row in range(stops[one] - sizes[one], stops[one])], ends)


def _with_rows(x: Floats, out: Floats, rows: list[int], own: Floats, steered: Floats) -> Floats:
    """`out` with some rows steered: a copy of `x` from the first change on."""
    if steered is own:
        return out
    out = x.copy() if out is x else out
    out[rows] = steered
    return out


def _receipt(
    plan: Plan,
    reason: UnsteeredReason,
    applied: tuple[PolicyRef, ...] = (),
    norm: float = 0.0,
    share: float = 0.0,
    held_out: tuple[PolicyRef, ...] = (),
) -> Receipt:
    return Receipt(reason, applied, plan.revision, plan.triple, norm, share, held_out)
