"""Where a recommended item's score comes from, concept by concept (docs/method.md, section 7), for dot-product heads.

A head scores item i as s_i = x . E_i + b_i, and the SAE reads x = b_dec + sum_j z_j W_dec[j] + e. With the
catalogue's mean m = x . mean(E) + mean(b) taken out, every score splits without remainder:

    s_i = m                                    catalogue mean: the same for every item of this user
        + b_dec . E~_i + b~_i                  base: what every user shares          (E~ = E - mean E, b~ = b - mean b)
        + sum_j z_j W_dec[j] . E~_i            contributions of the concepts that fire
        + e . E~_i                             unexplained: the reconstruction error

Not here: which concepts fire (the SAE), labels (the dictionary), other heads. numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError, InvalidRequestError

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]

# The head works in float32: its own rounding on a sum of d products, relative to the size of what was added.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class ItemAttribution:
    """The parts of one item's score, in score units; `catalogue_mean + base + contributions + other + unexplained`.

    `latents` int64 [m], `contributions` float64 [m] and `shares` float64 [m] are the named concepts, largest absolute
    contribution first; a share is |contribution| over the sum of |parts| of this item, catalogue mean left out.
    """

    item: int
    score: float
    catalogue_mean: float
    base: float
    latents: NDArray[np.int64]
    contributions: Doubles
    shares: Doubles
    other: float
    unexplained: float

    @property
    def total(self) -> float:
        """Sum of the parts: the score, up to rounding of float64."""
        return self.catalogue_mean + self.base + float(self.contributions.sum()) + self.other + self.unexplained


class ScoreAttributor:
    """Splits scores of one model by one SAE. Reads its arrays, keeps no state: safe for threads."""

    def __init__(self, item_vectors: Floats, item_bias: Floats | None, w_dec: Floats, b_dec: Floats) -> None:
        """`item_vectors` [n_items + 1, d] and `item_bias` [n_items + 1] have padding in row 0; `w_dec` [w, d].

        InvalidRequestError when the dimensions do not agree.
        """
        if item_vectors.shape[1] != w_dec.shape[1] or w_dec.shape[1] != len(b_dec):
            raise InvalidRequestError(
                f"item vectors {item_vectors.shape}, decoder {w_dec.shape} and its bias {b_dec.shape} do not share "
                "one dimension; use the SAE trained on this model"
            )
        self._vectors = item_vectors
        self._bias = np.zeros(len(item_vectors)) if item_bias is None else item_bias.astype(np.float64)
        self._w_dec, self._b_dec = w_dec, b_dec.astype(np.float64)
        self._mean_vector: Doubles = item_vectors[1:].mean(axis=0, dtype=np.float64)
        self._mean_bias = float(self._bias[1:].mean())

    def attribute(
        self,
        x: Floats,
        indices: Integers,
        values: Floats,
        items: Sequence[int] | Integers,
        scores: Floats | None = None,
        *,
        limit: int | None = None,
    ) -> list[ItemAttribution]:
        """Parts of the score of each of `items` (indices 1..n_items) for one activation `x` [d].

        `indices`, `values` [k] are its codes, strongest first; the first `limit` that fire are named (None = all),
        the rest goes to `other`. `scores` are what the head returned: the parts then sum to them exactly, and
        FailedPreconditionError says so when they are not a dot product of these vectors.
        """
        rows = np.asarray(items, np.int64)
        if rows.size and not (rows.min() >= 1 and rows.max() < len(self._vectors)):
            raise InvalidRequestError(f"item indices {rows.tolist()} leave 1..{len(self._vectors) - 1}")
        fires = values > 0
        latents, strengths = np.asarray(indices, np.int64)[fires], values[fires].astype(np.float64)
        x64 = x.astype(np.float64)
        centred = self._vectors[rows].astype(np.float64) - self._mean_vector
        parts = (strengths[:, None] * self._w_dec[latents].astype(np.float64)) @ centred.T
        error = x64 - self._b_dec - strengths @ self._w_dec[latents].astype(np.float64)
        base = centred @ self._b_dec + self._bias[rows] - self._mean_bias
        mean = float(x64 @ self._mean_vector) + self._mean_bias
        unexplained = centred @ error
        computed = mean + base + parts.sum(axis=0) + unexplained
        if scores is not None:
            unexplained = unexplained + self._rounding(scores.astype(np.float64), computed, x64, rows)
        else:
            scores = computed
        named = len(latents) if limit is None else min(limit, len(latents))
        return [
            _item(
                int(rows[i]), float(scores[i]), mean, float(base[i]), latents, parts[:, i], named, float(unexplained[i])
            )
            for i in range(len(rows))
        ]

    def _rounding(self, served: Doubles, computed: Doubles, x: Doubles, rows: NDArray[np.int64]) -> Doubles:
        """Served minus computed scores, which must be no more than the head's float32 rounding."""
        difference = served - computed
        scale = np.abs(self._vectors[rows].astype(np.float64)) @ np.abs(x) + np.abs(self._bias[rows]) + 1.0
        worst = int(np.argmax(np.abs(difference) / scale)) if len(rows) else 0
        if len(rows) and not np.abs(difference[worst]) <= _ROUNDING * scale[worst]:
            raise FailedPreconditionError(
                f"item {rows[worst]} was scored {served[worst]:.6g} but x . item + bias is {computed[worst]:.6g}; "
                "the head is not a plain dot product, so its scores cannot be split exactly"
            )
        return difference


def unexplained_shares(x: Floats, x_hat: Floats, mean: Floats) -> Floats:
    """|x - x_hat|^2 / |x - mean|^2 per row, float32 [n], of `x`, `x_hat` [n, d]; `mean` [d] is the training mean.

    A row that equals the mean has share 0 when it is reconstructed exactly, else infinity.
    """
    error = np.square(x.astype(np.float64) - x_hat).sum(axis=-1)
    spread = np.square(x.astype(np.float64) - mean).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(error == 0, 0.0, error / spread)
    return shares.astype(np.float32)


def refusal(unexplained_share: float, error_p99: float) -> str:
    """Why this vector cannot be explained, or "" when it can: its error must not exceed the training p99."""
    if unexplained_share <= error_p99:
        return ""
    return (
        f"cannot explain: {unexplained_share:.0%} of this activation is not reconstructed, more than the 99th "
        f"percentile in training ({error_p99:.0%})"
    )


def _item(
    item: int,
    score: float,
    mean: float,
    base: float,
    latents: NDArray[np.int64],
    parts: Doubles,
    named: int,
    unexplained: float,
) -> ItemAttribution:
    size = float(np.abs(parts).sum()) + abs(base) + abs(unexplained)
    order = np.argsort(-np.abs(parts[:named]), kind="stable")
    contributions = parts[:named][order]
    shares = np.abs(contributions) / size if size > 0 else np.zeros(named)
    return ItemAttribution(
        item, score, mean, base, latents[:named][order], contributions, shares, float(parts[named:].sum()), unexplained
    )
