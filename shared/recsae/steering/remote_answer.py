"""What may be used of an answer to `Steer`: nothing that the interpreter says is believed without a look.

A row is replaced only where its receipt says that it was steered, for this model version, and the change is finite,
within the budget and as long as the receipt says. All other rows stay the caller's own, bit for bit. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recsae.pipeline.triples import Triple
from recsae.steering.plans import Floats
from recsae.steering.receipts import Receipt, UnsteeredReason

# Receipts travel in float32 and changes are rounded to it once; a receipt further off than this is not of this row.
_CLAIM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Expected:
    """What answers are held against: the version that asks, and the largest |x' - x| as a share of |x|."""

    model_version: str
    norm_budget: float


def used(x: Floats, answer: Floats, receipts: Sequence[Receipt], expected: Expected) -> tuple[Floats, list[Receipt]]:
    """Rows to go on with, float32 [n, d], and the receipt of each; `x` itself where no row changed.

    `x` and `answer` are float32 [n, d], with a receipt per row.
    """
    receipts = [_checked(receipt, expected.model_version) for receipt in receipts]
    claimed = [row for row, receipt in enumerate(receipts) if receipt.reason is UnsteeredReason.STEERED]
    if not claimed:
        return x, receipts
    before, after = x[claimed].astype(np.float64), answer[claimed].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.square(after - before).sum(axis=1))
        lengths = np.sqrt(np.square(before).sum(axis=1))
        said = np.array([receipts[row].delta_norm for row in claimed])
        # Not finite compares false, and so is refused.
        honest = np.abs(norms - said) <= _CLAIM_TOLERANCE * (lengths + said)
        valid = np.isfinite(norms) & honest & (norms <= expected.norm_budget * lengths * (1 + _CLAIM_TOLERANCE))
    for row, fine in zip(claimed, valid.tolist(), strict=True):
        if not fine:
            receipts[row] = _refused(receipts[row], UnsteeredReason.INVALID_CHANGE)
    rows = np.asarray(claimed)[valid & (norms > 0)]
    if not len(rows):
        return x, receipts
    out = x.copy()
    out[rows] = answer[rows]
    return out, receipts


def per_request(receipts: Sequence[Receipt], sizes: Sequence[int]) -> tuple[Receipt, ...]:
    """One receipt per request, which owns the next `sizes[i]` rows: the row changed most, else its first.

    What policies in shadow would have changed is told by the row they would have changed most.
    """
    found, begin = [], 0
    for size in sizes:
        own = receipts[begin : begin + size]
        begin += size
        found.append(_telling(own) if own else Receipt(UnsteeredReason.NONE_MATCHED))
    return tuple(found)


def _telling(own: Sequence[Receipt]) -> Receipt:
    if len(own) == 1:
        return own[0]
    steered = [receipt for receipt in own if receipt.reason is UnsteeredReason.STEERED]
    told = max(steered, key=lambda receipt: receipt.delta_norm) if steered else own[0]
    shadows = [receipt.shadow for receipt in own if receipt.shadow is not None]
    applied = [shadow for shadow in shadows if shadow.reason is UnsteeredReason.STEERED]
    if not shadows:
        return told
    return replace(told, shadow=max(applied, key=lambda shadow: shadow.delta_norm) if applied else shadows[0])


def _checked(receipt: Receipt, model_version: str) -> Receipt:
    """The receipt, unless it is another version's or claims steering by nobody's policies."""
    triple = receipt.triple
    if triple.model_version not in ("", model_version):
        return _refused(receipt, UnsteeredReason.VERSION_MISMATCH, Triple(model_version))
    if receipt.reason is UnsteeredReason.STEERED and not (receipt.applied and triple.sae_version):
        return _refused(receipt, UnsteeredReason.INVALID_CHANGE)
    return receipt


def _refused(receipt: Receipt, reason: UnsteeredReason, triple: Triple | None = None) -> Receipt:
    return Receipt(reason, plan_revision=receipt.plan_revision, triple=triple or receipt.triple)
