"""Applies a plan to activations, keeping the error: x' = x + sum_j (z'_j - z_j) W_dec[j] (docs/method.md, section 2).

The one function behind in-process steering and the Steer RPC. It never raises for a row: whatever is wrong leaves
that row as it was, with the reason in its receipt. Rows are computed with elementwise operations only, so a row's
bits depend neither on its neighbours nor on the batch size; rows without a matching policy are never touched.
Not here: which plan is in force (`follower`) and where z comes from (`encoder`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

    `error` is what went wrong unforeseen, for the log; the rows concerned say ERROR.
    """

    activation: Floats
    receipts: tuple[Receipt, ...]
    error: Exception | None = None


@dataclass(frozen=True)
class _Recipe:
    """What a set of matching policies does: the operations that won their concept, and the policies they are from."""

    operations: tuple[PlanOperation, ...]
    applied: tuple[PolicyRef, ...]

    @property
    def reads_latents(self) -> bool:
        return any(operation.kind.reads_latents for operation in self.operations)


@dataclass(frozen=True)
class _Changed:
    """Steered rows float32 [n, d], and which of them are `kept` bool [n]."""

    rows: Floats
    kept: NDArray[np.bool_]


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
        steered = self.apply(x, [policies for policies, size in zip(matched, sizes, strict=True) for _ in range(size)])
        ends = np.cumsum(sizes).tolist()
        groups = [steered.receipts[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        none = _receipt(self.plan, UnsteeredReason.NONE_MATCHED)
        receipts = tuple(max(group, key=_weight, default=none) for group in groups)
        return Steered(steered.activation, receipts, steered.error)

    def apply(self, x: Floats, matched: Sequence[Matched]) -> Steered:
        """Applies to each row of `x` float32 [n, d] the policies matched for it; rows with none stay bit for bit."""
        rows_of: dict[Matched, list[int]] = defaultdict(list)
        for row, policies in enumerate(matched):
            if policies:
                rows_of[policies].append(row)
        if not rows_of:
            return unsteered(x, UnsteeredReason.NONE_MATCHED, self.plan, rows=len(matched))
        none = _receipt(self.plan, UnsteeredReason.NONE_MATCHED)
        receipts = [none] * len(matched)
        if x.ndim != 2 or x.shape != (len(matched), self.plan.dim) or x.dtype != np.float32:
            for row in (row for rows in rows_of.values() for row in rows):
                receipts[row] = _receipt(self.plan, UnsteeredReason.INVALID_CHANGE)
            return Steered(x, tuple(receipts))
        changed: dict[int, Floats] = {}
        error = self._apply_groups(x, rows_of, receipts, changed)
        return Steered(_replaced(x, changed), tuple(receipts), error)

    def _apply_groups(
        self, x: Floats, rows_of: dict[Matched, list[int]], receipts: list[Receipt], changed: dict[int, Floats]
    ) -> Exception | None:
        recipes = {policies: _recipe(policies) for policies in rows_of}
        reading = [row for policies, rows in rows_of.items() if recipes[policies].reads_latents for row in rows]
        codes, error = self._codes(x, reading)
        place = {row: index for index, row in enumerate(reading)}
        for policies, rows in rows_of.items():
            recipe = recipes[policies]
            if recipe.reads_latents and codes is None:
                for row in rows:
                    receipts[row] = _receipt(self.plan, UnsteeredReason.ERROR)
                continue
            own = [place[row] for row in rows] if recipe.reads_latents else []
            delta = _delta(recipe, codes, own, len(rows), self.plan.dim)
            changed_here, found = self._judged(x[rows], delta, recipe)
            for index, row in enumerate(rows):
                receipts[row] = found[index]
                if changed_here.kept[index]:
                    changed[row] = changed_here.rows[index]
        return error

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

    def _judged(self, x: Floats, delta: Doubles, recipe: _Recipe) -> tuple[_Changed, list[Receipt]]:
        """The receipts of rows `x` [n, d], and the steered rows, of which those count that changed and passed."""
        norms = np.sqrt(np.square(delta).sum(axis=1))
        own = np.sqrt(np.square(x, dtype=np.float64).sum(axis=1))
        steered = (x + delta).astype(np.float32)
        valid = np.isfinite(norms) & np.isfinite(own) & np.isfinite(steered).all(axis=1)
        within = norms <= self.plan.norm_budget * own
        receipts = []
        for norm, length, is_valid, fits in zip(
            norms.tolist(), own.tolist(), valid.tolist(), within.tolist(), strict=True
        ):
            if not is_valid:
                receipts.append(_receipt(self.plan, UnsteeredReason.INVALID_CHANGE))
            elif not fits:
                receipts.append(_receipt(self.plan, UnsteeredReason.OVER_NORM_BUDGET))
            else:
                share = norm / length if length > 0 else 0.0
                receipts.append(_receipt(self.plan, UnsteeredReason.STEERED, recipe.applied, norm, share))
        return _Changed(steered, valid & within & (norms > 0)), receipts


def _weight(receipt: Receipt) -> tuple[bool, float]:
    return receipt.reason is UnsteeredReason.STEERED, receipt.delta_norm


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


def _delta(recipe: _Recipe, codes: LatentCodes | None, places: list[int], rows: int, dim: int) -> Doubles:
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


def _replaced(x: Floats, changed: dict[int, Floats]) -> Floats:
    if not changed:
        return x
    steered = x.copy()
    for row, value in changed.items():
        steered[row] = value
    return steered
