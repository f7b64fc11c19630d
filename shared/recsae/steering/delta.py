"""Applies a plan to activations, keeping the error: x' = x + sum_j (z'_j - z_j) W_dec[j] (docs/method.md, section 2).

The one function behind in-process steering and the Steer RPC. It never raises for a row: whatever is wrong leaves
that row as it was, with the reason in its receipt. Rows are computed with elementwise operations only, so a row's
bits depend neither on its neighbours nor on the batch size; rows without a matching policy are never touched.
Not here: which plan is in force (`follower`) and where z comes from (`encoder`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsae.steering.matching import Matcher, SteerContext
from recsae.steering.plans import Floats, Plan, PlanOperation, PlanPolicy
from recsae.steering.policies import OperationKind
from recsae.steering.receipts import PolicyRef, Receipt, UnsteeredReason

Doubles = NDArray[np.float64]


class LatentCodes(Protocol):
    """Sparse latents of n rows: `indices` integer [n, k], `values` float32 [n, k], a value <= 0 does not fire."""

    @property
    def indices(self) -> NDArray[Any]:
        """Latent of each place, integer [n, k]."""

    @property
    def values(self) -> Floats:
        """Value of each place, float32 [n, k]."""


Encode = Callable[[Floats], LatentCodes]
Matched = tuple[PlanPolicy, ...]


@dataclass(frozen=True)
class Steered:
    """`activation` float32 [n, d] (the very array given when no row changed), one receipt per row.

    `error` is what went wrong unforeseen, for the log; the rows concerned say ERROR. `shadows` maps a request to the
    activations float32 [rows, d] that matching policies in shadow would have made of its rows.
    """

    activation: Floats
    receipts: tuple[Receipt, ...]
    error: Exception | None = None
    shadows: Mapping[int, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class _Recipe:
    """What a set of matching policies does: the operations that won their concept, and the policies they are from."""

    operations: tuple[PlanOperation, ...]
    applied: tuple[PolicyRef, ...]

    @property
    def reads_latents(self) -> bool:
        return any(operation.kind.reads_latents for operation in self.operations)


@dataclass(frozen=True)
class _Judged:
    """Steered rows float32 [n, d], the `norms` of their changes and the `lengths` they had, float64 [n].

    A row counts where it is `kept`: `valid` (finite), `within` the budget, and changed, bool [n] each.
    """

    rows: Floats
    norms: Doubles
    lengths: Doubles
    valid: NDArray[np.bool_]
    within: NDArray[np.bool_]
    kept: NDArray[np.bool_]

    def telling(self, begin: int, end: int) -> int:
        """The row that speaks for rows begin..end-1: the one changed most, or the first where none may be."""
        if end - begin == 1:
            return begin
        allowed = (self.valid & self.within)[begin:end]
        return begin + int(np.where(allowed, self.norms[begin:end], -1.0).argmax())


class Steerer:
    """Matches and applies one plan. Safe to call from several threads."""

    def __init__(self, plan: Plan, encode: Encode | None = None) -> None:
        """`encode` is the full encoder of the plan's SAE; None leaves rows unsteered whose operations read z."""
        self.plan = plan
        self.matcher = Matcher(plan.policies)
        self._encode = encode

    def match(self, context: SteerContext, now: float) -> Matched:
        """Policies that hold for a request at `now` (seconds since the epoch), in the order of application."""
        return self.matcher.match(context, now)

    def steer(self, x: Floats, contexts: Sequence[SteerContext], now: float) -> Steered:
        """`match` and `apply` for activations float32 [n, d] and the context of each row."""
        if self.plan.kill_switch:
            return unsteered(x, UnsteeredReason.KILL_SWITCH, self.plan, rows=len(contexts))
        if not self.plan.policies:
            return unsteered(x, UnsteeredReason.NONE_MATCHED, self.plan, rows=len(contexts))
        return self.apply(x, [self.match(context, now) for context in contexts])

    def steer_groups(self, x: Floats, contexts: Sequence[SteerContext], sizes: Sequence[int], now: float) -> Steered:
        """As `steer`, where request i owns the next `sizes[i]` rows of `x`: matched once, with one receipt.

        A row that may not be changed stays as it is and the others are changed all the same; the receipt is that of
        the row changed most, or says why none was.
        """
        if self.plan.kill_switch or not self.plan.policies:
            return self.steer(x, contexts, now)
        matched = [self.match(context, now) for context in contexts]
        if not any(matched):
            return unsteered(x, UnsteeredReason.NONE_MATCHED, self.plan, rows=len(contexts))
        return self._apply(x, matched, sizes)

    def apply(self, x: Floats, matched: Sequence[Matched]) -> Steered:
        """Applies to each row of `x` float32 [n, d] the policies matched for it; rows with none stay bit for bit."""
        return self._apply(x, matched)

    def _apply(self, x: Floats, matched: Sequence[Matched], sizes: Sequence[int] | None = None) -> Steered:
        """A receipt per request; request i owns the next `sizes[i]` rows of `x`, None = one each."""
        requests_of: dict[Matched, list[int]] = defaultdict(list)
        for request, policies in enumerate(matched):
            if policies and (sizes is None or sizes[request]):
                requests_of[policies].append(request)
        if not requests_of:
            return unsteered(x, UnsteeredReason.NONE_MATCHED, self.plan, rows=len(matched))
        receipts = [_receipt(self.plan, UnsteeredReason.NONE_MATCHED)] * len(matched)
        rows = len(matched) if sizes is None else sum(sizes)
        if x.ndim != 2 or x.shape != (rows, self.plan.dim) or x.dtype != np.float32:
            for request in (request for requests in requests_of.values() for request in requests):
                receipts[request] = _receipt(self.plan, UnsteeredReason.INVALID_CHANGE)
            return Steered(x, tuple(receipts))
        steered, error = self._apply_groups(x, requests_of, sizes, receipts)
        return Steered(steered, tuple(receipts), error)

    def _apply_groups(
        self,
        x: Floats,
        requests_of: Mapping[Matched, list[int]],
        sizes: Sequence[int] | None,
        receipts: list[Receipt],
    ) -> tuple[Floats, Exception | None]:
        """`x`, or a copy where a row changed, and what went wrong; writes the receipts of the requests."""
        recipes = {policies: _recipe(policies) for policies in requests_of}
        rows_of = {policies: _rows(requests, sizes) for policies, requests in requests_of.items()}
        reading = [row for policies, rows in rows_of.items() if recipes[policies].reads_latents for row in rows]
        codes, error = self._codes(x, reading)
        out, read = x, 0
        for policies, requests in requests_of.items():
            recipe, rows = recipes[policies], rows_of[policies]
            if recipe.reads_latents and codes is None:
                for request in requests:
                    receipts[request] = _receipt(self.plan, UnsteeredReason.ERROR)
                continue
            own = slice(read, read + len(rows)) if recipe.reads_latents else slice(0)
            read = own.stop if recipe.reads_latents else read
            found = _judged(x[rows], _delta(recipe, codes, own, len(rows), self.plan.dim), self.plan.norm_budget)
            begin = 0
            for request in requests:
                end = begin + (1 if sizes is None else sizes[request])
                receipts[request] = self._receipt_of(found, recipe, found.telling(begin, end))
                begin = end
            (changed,) = found.kept.nonzero()
            if len(changed):
                out = x.copy() if out is x else out
                out[rows if len(changed) == len(rows) else np.asarray(rows)[changed]] = found.rows[changed]
        return out, error

    def _receipt_of(self, found: _Judged, recipe: _Recipe, row: int) -> Receipt:
        if not found.valid[row]:
            return _receipt(self.plan, UnsteeredReason.INVALID_CHANGE)
        if not found.within[row]:
            return _receipt(self.plan, UnsteeredReason.OVER_NORM_BUDGET)
        norm, length = float(found.norms[row]), float(found.lengths[row])
        return _receipt(self.plan, UnsteeredReason.STEERED, recipe.applied, norm, norm / length if length > 0 else 0.0)

    def _codes(self, x: Floats, rows: list[int]) -> tuple[LatentCodes | None, Exception | None]:
        """The latents of the rows that need them; the error when there is no encoder or it failed."""
        if not rows:
            return None, None
        if self._encode is None:
            return None, RuntimeError(f"no encoder of SAE {self.plan.triple.sae_version} is loaded")
        try:
            codes = self._encode(x[rows])
        except Exception as error:
            return None, error
        if codes.values.shape[:1] != (len(rows),) or codes.indices.shape != codes.values.shape:
            return None, ValueError(f"the encoder returned {codes.values.shape} values for {len(rows)} rows")
        return codes, None


def _rows(requests: list[int], sizes: Sequence[int] | None) -> list[int]:
    """Rows of some requests, in their order."""
    if sizes is None:
        return requests
    ends = np.cumsum(sizes)
    rows: list[int] = np.concatenate([np.arange(ends[one] - sizes[one], ends[one]) for one in requests]).tolist()
    return rows


def _judged(x: Floats, delta: Doubles, norm_budget: float) -> _Judged:
    """Rows `x` [n, d] with `delta` added, and which of them may be used."""
    norms = np.sqrt(np.square(delta).sum(axis=1))
    lengths = np.sqrt(np.square(x, dtype=np.float64).sum(axis=1))
    steered = (x + delta).astype(np.float32)
    valid = np.isfinite(norms) & np.isfinite(lengths) & np.isfinite(steered).all(axis=1)
    within = norms <= norm_budget * lengths
    return _Judged(steered, norms, lengths, valid, within, valid & within & (norms > 0))


def unsteered(x: Floats, reason: UnsteeredReason, plan: Plan | None = None, *, rows: int | None = None) -> Steered:
    """Every row as it was, with one reason; `rows` when `x` cannot be trusted to say how many there are."""
    receipt = Receipt(reason) if plan is None else _receipt(plan, reason)
    return Steered(x, (receipt,) * (len(x) if rows is None else rows))


def _recipe(policies: Matched) -> _Recipe:
    """The first policy that touches a concept keeps it."""
    operations: dict[int, PlanOperation] = {}
    applied = []
    for policy in policies:
        won = [operation for operation in policy.operations if operation.latent not in operations]
        operations |= {operation.latent: operation for operation in won}
        if won:
            applied.append(policy.ref)
    return _Recipe(tuple(operations.values()), tuple(applied))


def _delta(recipe: _Recipe, codes: LatentCodes | None, places: slice, rows: int, dim: int) -> Doubles:
    """sum_j (z'_j - z_j) W_dec[j], float64 [rows, d], operation by operation: no product that mixes rows."""
    delta = np.zeros((rows, dim))
    for operation in recipe.operations:
        if operation.kind is OperationKind.ADD:
            change = np.full(rows, operation.value)
        else:
            assert codes is not None, "the recipe reads latents"
            z = latent_values(codes, operation.latent)[places]
            change = target_values(operation.kind, operation.value, z) - z
        delta += change[:, None] * operation.decoder_row.astype(np.float64)
    return delta


def latent_values(codes: LatentCodes, latent: int) -> Doubles:
    """Values of one latent, float64 [n], 0 where it does not fire. At most one place of a row holds it: no rounding."""
    found: Doubles = np.where(codes.indices == latent, codes.values, 0).sum(axis=1, dtype=np.float64)
    # Propagates NaN on purpose: a broken encoder must be seen, not clipped to silence.
    return np.maximum(found, 0.0)


def target_values(kind: OperationKind, value: float, z: Doubles) -> Doubles:
    """The z' of each z, float64 [n], in the same units."""
    match kind:
        case OperationKind.ABLATE:
            return np.zeros_like(z)
        case OperationKind.SCALE:
            return z * value
        case OperationKind.ADD:
            return z + value
        case OperationKind.SET:
            return np.full_like(z, value)
        case OperationKind.CAP:
            return np.minimum(z, value)


def _receipt(
    plan: Plan,
    reason: UnsteeredReason,
    applied: tuple[PolicyRef, ...] = (),
    norm: float = 0.0,
    share: float = 0.0,
) -> Receipt:
    return Receipt(reason, applied, plan.revision, plan.triple, norm, share)
