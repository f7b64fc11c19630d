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
    latents: `latents` [m, 1, 1], the `steps` z' - z = min(z * slope + offset, most) by slopes, offsets and, where there
    is one at all, the most, float64 [m, 1] each, and their decoder `rows`.
    """

    applied: tuple[PolicyRef, ...]
    added: Doubles
    norm: float
    latents: NDArray[np.int64]
    slopes: Doubles
    offsets: Doubles
    most: Doubles | None
    rows: tuple[Doubles, ...]

    @property
    def reads_latents(self) -> bool:
        """True when it needs the latents of a row."""
        return bool(self.rows)

    def change(self, codes: LatentCodes, begin: int, end: int) -> tuple[Doubles, list[float]]:
        """The change float64 [n, d] of the rows whose latents are `codes[begin:end]`, and its n norms."""
        steps = _latents_at(codes.indices[begin:end], codes.values[begin:end], self.latents) * self.slopes
        steps += self.offsets
        if self.most is not None:
            steps = np.minimum(steps, self.most)
        change = steps[0][:, None] * self.rows[0]
        for place in range(1, len(self.rows)):
            change += steps[place][:, None] * self.rows[place]
        if self.norm > 0:
            change += self.added
        return change, lengths_of(change)


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
    slopes, offsets, most = np.array([_step(one.kind, one.value) for one in reading]).T.reshape(3, -1, 1)
    return Recipe(
        tuple(applied),
        added,
        lengths_of(added[None])[0],
        np.array([operation.latent for operation in reading], np.int64)[:, None, None],
        slopes,
        offsets,
        most if np.isfinite(most).any() else None,
        tuple(wide(operation) for operation in reading),
    )


def lengths_of(rows: Doubles) -> list[float]:
    """Euclidean length of each row of float64 [n, d]; each is summed by itself."""
    lengths: list[float] = np.sqrt(np.vecdot(rows, rows)).tolist()
    return lengths


def latent_values(codes: LatentCodes, latent: int) -> Doubles:
    """Values of one latent, float64 [n], 0 where it does not fire. At most one place of a row holds it: no rounding."""
    values: Doubles = _latents_at(codes.indices, codes.values, np.array([[[latent]]]))[0]
    return values


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


def _step(kind: OperationKind, value: float) -> tuple[float, float, float]:
    """`target_values` less z as slope, offset and most: z' - z = min(z * slope + offset, most)."""
    match kind:
        case OperationKind.ABLATE:
            return -1.0, 0.0, math.inf
        case OperationKind.SCALE:
            return value - 1.0, 0.0, math.inf
        case OperationKind.ADD:
            return 0.0, value, math.inf
        case OperationKind.SET:
            return -1.0, value, math.inf
        case OperationKind.CAP:
            return -1.0, value, 0.0


def _latents_at(indices: NDArray[Any], values: Floats, latents: NDArray[np.int64]) -> Doubles:
    """Values of m latents [m, 1, 1] in n rows, float64 [m, n], 0 where they do not fire."""
    held = np.where(indices == latents, values, np.float32(0))
    # Propagates NaN on purpose: a broken encoder must be seen, not clipped to silence.
    found: Doubles = np.maximum.reduce(held, axis=2, initial=0).astype(np.float64)
    return found
