"""What a set of matching policies does to rows, ready to compute: sum_j (z'_j - z_j) W_dec[j].

Rows are computed with elementwise operations only, so a row's bits depend neither on its neighbours nor on the batch
size. Not here: whether a change may be used and where it goes (`delta`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsae.steering.plans import Floats, PlanOperation, PlanPolicy
from recsae.steering.policies import OperationKind
from recsae.steering.receipts import PolicyRef

Doubles = NDArray[np.float64]


class LatentCodes(Protocol):
    """Sparse latents of n rows: `indices` integer [n, k], `values` float32 [n, k], a value <= 0 does not fire."""

    @property
    def indices(self) -> NDArray[Any]:
        """Latent of each place, integer [n, k]."""

    @property
    def values(self) -> Floats:
        """Value of each place, float32 [n, k]."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """The operations that won their concept, and the policies they are from.

    `added` float64 [d] is the part that is the same for every row, `norm` its length. Of the m operations that read
    latents: `latents` [m], the `targets` float64 [3, m, 1] by which z' = min(z * factor + offset, cap), their `rows`.
    """

    applied: tuple[PolicyRef, ...]
    added: Doubles
    norm: float
    latents: NDArray[np.int64]
    targets: Doubles
    rows: tuple[Doubles, ...]

    @property
    def reads_latents(self) -> bool:
        """True when it needs the latents of a row."""
        return bool(self.rows)

    def change(self, codes: LatentCodes, begin: int, end: int) -> tuple[Doubles, Doubles]:
        """The change float64 [n, d] of the rows whose latents are `codes[begin:end]`, and its norms float64 [n]."""
        z = _latents_at(codes.indices[begin:end], codes.values[begin:end], self.latents)
        factors, offsets, caps = self.targets
        steps = np.minimum(z * factors + offsets, caps) - z
        change = steps[0][:, None] * self.rows[0]
        for step, row in zip(steps[1:], self.rows[1:], strict=True):
            change += step[:, None] * row
        change += self.added
        return change, np.sqrt(np.add.reduce(change * change, axis=1))


def recipe_of(policies: Sequence[PlanPolicy], dim: int, wide: Callable[[PlanOperation], Doubles]) -> Recipe:
    """The recipe of policies in the order of application: the first that touches a concept keeps it.

    `wide` gives an operation's decoder row as float64 [d].
    """
    operations: dict[int, PlanOperation] = {}
    applied = []
    for policy in policies:
        won = [operation for operation in policy.operations if operation.latent not in operations]
        operations |= {operation.latent: operation for operation in won}
        if won:
            applied.append(policy.ref)
    added = np.zeros(dim)
    for operation in operations.values():
        if not operation.kind.reads_latents:
            added += operation.value * wide(operation)
    reading = [operation for operation in operations.values() if operation.kind.reads_latents]
    return Recipe(
        tuple(applied),
        added,
        float(np.sqrt(np.add.reduce(added * added))),
        np.array([operation.latent for operation in reading], np.int64),
        np.array([_target(operation.kind, operation.value) for operation in reading]).T.reshape(3, -1, 1),
        tuple(wide(operation) for operation in reading),
    )


def latent_values(codes: LatentCodes, latent: int) -> Doubles:
    """Values of one latent, float64 [n], 0 where it does not fire. At most one place of a row holds it: no rounding."""
    values: Doubles = _latents_at(codes.indices, codes.values, np.array([latent]))[0]
    return values


def target_values(kind: OperationKind, value: float, z: Doubles) -> Doubles:
    """The z' of each z, float64 [n], in the same units."""
    factor, offset, cap = _target(kind, value)
    return np.minimum(z * factor + offset, cap)


def _target(kind: OperationKind, value: float) -> tuple[float, float, float]:
    """Factor, offset and cap: z' = min(z * factor + offset, cap)."""
    match kind:
        case OperationKind.ABLATE:
            return 0.0, 0.0, math.inf
        case OperationKind.SCALE:
            return value, 0.0, math.inf
        case OperationKind.ADD:
            return 1.0, value, math.inf
        case OperationKind.SET:
            return 0.0, value, math.inf
        case OperationKind.CAP:
            return 1.0, 0.0, value


def _latents_at(indices: NDArray[Any], values: Floats, latents: NDArray[np.int64]) -> Doubles:
    """Values of m latents in n rows, float64 [m, n], 0 where they do not fire."""
    held = np.where(indices == latents[:, None, None], values, np.float32(0))
    # Propagates NaN on purpose: a broken encoder must be seen, not clipped to silence.
    values_at: Doubles = np.maximum.reduce(held, axis=2, initial=0).astype(np.float64)
    return values_at
