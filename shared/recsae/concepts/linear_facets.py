"""The rival of described concepts: activations predicted from facets linearly, with no SAE, at equal length.

What a description of the model costs is counted in bits: a choice among n things log2 n, a number 8. The linear map
gets as many features as the rules' bits pay for, taken greedily by how much of the activations' variance they add
(orthogonal matching pursuit, Pati et al. 1993). Not here: what rankings keep (`described`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.features import RECENCY_DECAY, RECENT_ITEMS, USUAL_ITEMS, RowFeatures
from recsae.concepts.formulas import formulas_of
from recsae.concepts.records import RuleRecord

Floats = NDArray[np.float32]

BITS_PER_NUMBER = 8.0
_VIEWS = 4
# Products of all columns with each other: 4,096 x 4,096 float64 = 134 MB, three times while columns are chosen.
_MOST_COLUMNS = 4096
# Ridge, in rows: what a feature says on fewer rows than this is mostly noise.
_RIDGE = 100.0


@dataclass(frozen=True)
class LinearFacets:
    """x is `offset` [d] + features[`columns` [m]] @ `weights` [m, d]; `facets` are all F names columns count in.

    Columns 0..F-1 are recency-weighted shares, then shares of forty items, facets of the newest item, of the one
    before.
    """

    columns: NDArray[np.int64]
    weights: Floats
    offset: Floats

    def predict(self, features: RowFeatures) -> Floats:
        """Predicted activations float32 [n, d]."""
        out = np.empty((len(features), len(self.offset)), np.float32)
        for rows, block in features.blocks():
            out[rows] = _views(block)[:, self.columns] @ self.weights + self.offset
        return out


def fit_linear(features: RowFeatures, x: Floats, bits: float) -> LinearFacets:
    """The map from facets to `x` [n, d] that `bits` pay for; no feature at all when they pay for none."""
    d, every = x.shape[1], _VIEWS * len(features.facets.names)
    most = int((bits - BITS_PER_NUMBER * d) // (np.log2(max(every, 2)) + BITS_PER_NUMBER * d))
    asked = _most_varied(features, every)
    size = len(asked)
    mean, total = x.mean(axis=0, dtype=np.float64), np.zeros(size)
    gram, cross = np.zeros((size, size)), np.zeros((size, d))
    for rows, block in features.blocks():
        views = _views(block)[:, asked]
        total += views.sum(axis=0, dtype=np.float64)
        gram += (views.T @ views).astype(np.float64)
        cross += views.T @ (x[rows] - mean.astype(np.float32))
    n = len(features)
    gram -= np.outer(total, total) / n
    columns = _pursuit(gram, cross, min(max(most, 0), size))
    chosen = gram[np.ix_(columns, columns)] + _RIDGE * np.eye(len(columns))
    weights = np.linalg.solve(chosen, cross[columns]) if len(columns) else np.zeros((0, d))
    offset = mean - (total[columns] / n) @ weights
    return LinearFacets(asked[columns], weights.astype(np.float32), offset.astype(np.float32))


def rule_bits(rules: Sequence[RuleRecord], literals: int) -> float:
    """Length of rules that choose among `literals` questions: questions, formula, and a strength per pattern."""
    total = 0.0
    for rule in rules:
        m = len(rule.literals)
        if m:
            total += m * np.log2(max(literals, 2)) + np.log2(len(formulas_of(m).order))
        total += BITS_PER_NUMBER * max(1, len(rule.levels))
    return float(total)


def _most_varied(features: RowFeatures, size: int) -> NDArray[np.int64]:
    """The columns that may be taken, ascending: all of them, or the 4,096 of largest variance where there are more."""
    if size <= _MOST_COLUMNS:
        return np.arange(size)
    total, squares = np.zeros(size), np.zeros(size)
    for _, block in features.blocks():
        views = _views(block)
        total += views.sum(axis=0, dtype=np.float64)
        squares += np.square(views).sum(axis=0, dtype=np.float64)
    variance = squares - total**2 / max(1, len(features))
    return np.sort(np.argsort(-variance, kind="stable")[:_MOST_COLUMNS])


def _pursuit(gram: NDArray[np.float64], cross: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Columns in the order they are taken: each leaves least of what the others left."""
    gram, cross = gram.copy(), cross.copy()
    taken: list[int] = []
    for _ in range(most):
        own = np.diag(gram)
        usable = own > _RIDGE * 1e-3
        gain = np.where(usable, np.square(cross).sum(axis=1) / (own + _RIDGE), 0.0)
        gain[taken] = 0
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        taken.append(best)
        share = gram[:, best] / (own[best] + _RIDGE)
        cross -= np.outer(share, cross[best])
        gram -= np.outer(share, gram[best])
    return np.array(taken, np.int64)


def _views(features: RowFeatures) -> Floats:
    """All that rules can ask of facets, as numbers, float32 [n, 4 F]."""
    views = [
        features.shares(RECENT_ITEMS, RECENCY_DECAY),
        features.shares(USUAL_ITEMS, 1.0),
        features.carried(0),
        features.carried(1),
    ]
    return np.concatenate(views, axis=1)
