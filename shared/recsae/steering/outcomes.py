"""What receipts say: what was changed, what shadow policies would have changed, or why nothing was.

Not here: the computing (`delta`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsae.steering.groups import Group
from recsae.steering.judging import Judged
from recsae.steering.matching import Match
from recsae.steering.plans import Floats, Plan
from recsae.steering.receipts import PolicyRef, Receipt, ShadowOutcome, UnsteeredReason
from recsae.steering.recipes import Recipe, lengths_of


def receipt_of(plan: Plan, reason: UnsteeredReason, *, held_out: tuple[PolicyRef, ...] = ()) -> Receipt:
    """The receipt of a request that nothing was done for, and why."""
    return Receipt(reason, (), plan.revision, plan.triple, held_out=held_out)


def tell(plan: Plan, group: Group, recipe: Recipe, found: Judged, receipts: list[Receipt]) -> None:
    """Writes what the live policies did: of several rows of a request, to the one changed most."""
    applied, held_out = recipe.applied, group.work.none.held_out
    for request, begin, end in group.spans:
        row = begin if end - begin == 1 else found.telling(begin, end)
        reason = UnsteeredReason.STEERED if found.all_usable else found.reason(row)
        if reason is UnsteeredReason.STEERED:
            norm, length = found.norms[row], found.lengths[row]
            share = norm / length if length > 0 else 0.0
            receipts[request] = Receipt(reason, applied, plan.revision, plan.triple, norm, share, held_out)
        else:
            receipts[request] = receipt_of(plan, reason, held_out=held_out)


def tell_shadow(group: Group, found: Judged, served: Floats, would_be: Floats, receipts: list[Receipt]) -> None:
    """Adds what the rows would have been with the shadow policies, beside those `served`, float32 [n, d] each."""
    norms = lengths_of(would_be.astype(np.float64) - served)
    for request, begin, end in group.spans:
        reason = found.reason(found.telling(begin, end))
        norm = share = 0.0
        if reason is UnsteeredReason.STEERED:
            row = max(range(begin, end), key=norms.__getitem__)
            norm, length = norms[row], found.lengths[row]
            share = norm / length if length > 0 else 0.0
        shadow = ShadowOutcome(group.work.shadow, norm, share, reason)
        receipts[request] = replace(receipts[request], shadow=shadow)


def misfit(plan: Plan, match: Match) -> Receipt:
    """The receipt where the activations are none that the plan is for: of another length, type or number of rows."""
    reason = UnsteeredReason.INVALID_CHANGE
    shadow = ShadowOutcome(tuple(policy.ref for policy in match.shadow), reason=reason) if match.shadow else None
    told = receipt_of(plan, reason if match.live else UnsteeredReason.NONE_MATCHED, held_out=match.held_out)
    return replace(told, shadow=shadow)


def refuse(plan: Plan, group: Group, reason: UnsteeredReason, receipts: list[Receipt]) -> None:
    """Writes why the live policies did nothing."""
    if group.work.live is not None:
        refused = receipt_of(plan, reason, held_out=group.work.none.held_out)
        for request, _, _ in group.spans:
            receipts[request] = refused


def refuse_shadow(group: Group, reason: UnsteeredReason, receipts: list[Receipt]) -> None:
    """Adds why the shadow policies would have done nothing."""
    if group.work.together is not None:
        for request, _, _ in group.spans:
            receipts[request] = replace(receipts[request], shadow=ShadowOutcome(group.work.shadow, reason=reason))
