"""Steer: the exporter's activations through an interpreter and back into Rank."""

from __future__ import annotations

from collections import Counter

import numpy as np

from recsae.conformance.checks.ranking import lists_alike, rank_request
from recsae.conformance.outcomes import BrokenError, Check, NotApplicableError
from recsae.conformance.probe import Probe
from recsae.conformance.reading import Floats, matrix
from recsae.v1 import common_pb2, steering_pb2

_K = 5
# The norm of a float32 difference, computed here and there.
_NORM_TOLERANCE = 1e-3


def receipts(probe: Probe) -> str:
    """A row and a receipt for every row, with versions that belong to the model."""
    before, after = _steered(probe)
    asked = f"Steer of {len(before)} rows"
    if len(after.receipts) != len(before):
        raise BrokenError(asked, f"{len(after.receipts)} receipts", "the interpreter owes one receipt per row")
    for row, receipt in enumerate(after.receipts):
        if bool(receipt.applied) == (receipt.reason != common_pb2.UNSTEERED_REASON_UNSPECIFIED):
            raise BrokenError(
                asked, f"row {row} with neither or both of policies and reason", "set exactly one of the two"
            )
        if receipt.applied and receipt.triple.model_version != probe.info.version:
            came = f"row {row} steered for version {receipt.triple.model_version!r}"
            raise BrokenError(asked, came, f"steer with a plan for {probe.info.version} only")
    reasons = Counter("steered" if one.applied else _reason(one) for one in after.receipts)
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


def unsteered(probe: Probe) -> str:
    """Rows without a policy come back bit for bit; the others moved as far as their receipt says."""
    before, after = _steered(probe)
    rows = matrix(after.activations, "Steer", rows=len(before), dim=probe.hook.dim)
    moved = 0
    for row, receipt in enumerate(after.receipts):
        same = rows[row].tobytes() == before[row].tobytes()
        if not receipt.applied and not same:
            raise BrokenError("Steer of a row no policy matches", f"row {row} changed", "return it bit for bit")
        norm = float(np.linalg.norm(rows[row].astype(np.float64) - before[row]))
        if receipt.applied and abs(norm - receipt.delta_norm) > _NORM_TOLERANCE * max(norm, 1.0):
            came = f"row {row} moved by {norm:.4g}, its receipt says {receipt.delta_norm:.4g}"
            raise BrokenError("Steer", came, "let the receipt say what was done")
        moved += not same
    return f"{moved} of {len(before)} rows moved"


def ranked(probe: Probe) -> str:
    """Rank takes steered rows back; lists of unsteered rows are the same bit for bit."""
    before, after = _steered(probe)
    request = rank_request(probe, probe.cases, k=_K)
    bare = probe.service.rank(request)
    request.activations.CopyFrom(after.activations)
    steered = probe.service.rank(request)
    rows = len(before) // len(probe.cases)
    changed = 0
    for place in range(len(probe.cases)):
        touched = any(receipt.applied for receipt in after.receipts[place * rows : (place + 1) * rows])
        same = lists_alike(bare.lists[place : place + 1], steered.lists[place : place + 1])
        if not touched and not same:
            raise BrokenError(
                "Rank of rows that Steer left alone", f"list {place} changed", "rank equal rows to equal lists"
            )
        changed += not same
    return f"{changed} of {len(probe.cases)} lists changed"


def _steered(probe: Probe) -> tuple[Floats, steering_pb2.SteerResponse]:
    """Rows as Rank takes them, and what the interpreter made of them."""
    if not probe.service.has_interpreter:
        raise NotApplicableError("name an interpreter: --steer HOST:PORT")
    if not probe.hook.steerable:
        raise NotApplicableError(f"hook {probe.hook.name!r} is not steerable")
    request = rank_request(probe, probe.cases, k=_K)
    before = matrix(request.activations, "ExportActivations", dim=probe.hook.dim)
    batch = common_pb2.ActivationBatch(
        model=probe.info.name,
        model_version=probe.info.version,
        hook=probe.hook.name,
        side=probe.hook.side,
        activations=request.activations,
    )
    contexts = [steering_pb2.SteerContext(request_id=f"conformance-{row}") for row in range(len(before))]
    return before, probe.service.steer(steering_pb2.SteerRequest(batch=batch, contexts=contexts))


def _reason(receipt: common_pb2.Receipt) -> str:
    return common_pb2.UnsteeredReason.Name(receipt.reason).removeprefix("UNSTEERED_REASON_").lower()


_NEEDS = ("ranking.answers",)
CHECKS = (
    Check("steering.receipts", "Steer answers a row and a receipt for every row", receipts, _NEEDS),
    Check("steering.unsteered", "rows no policy matches come back bit for bit", unsteered, ("steering.receipts",)),
    Check("steering.ranked", "Rank goes on from what Steer returns", ranked, ("steering.unsteered", "ranking.alone")),
)
