"""Full ranking by a dot-product head, in memory: the target's place and the best items of every row.

For models whose items lie in memory as vectors, such as benchmarks and experiments; the pipeline ranks through the
recommender it serves (`recsae.pipeline.stages.ranking`). numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.recommenders.metrics import ranks_from_scores
from recsae.sae.rankings import DEPTH, NO_ITEM, Rankings

# 32 MiB of scores, and a few times that while the best are picked.
_SCORES_AT_ONCE = 1 << 23

Floats = NDArray[np.float32]
Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class ExcludedItems:
    """Items no list of a row may hold: those of row r are `items[offsets[r]:offsets[r + 1]]`; int64 [n + 1] and [m]."""

    offsets: Integers
    items: Integers


class DotProductRanker:
    """Ranks all items by `x . vectors[i] + biases[i]` for rows whose targets it knows. Called with activations."""

    def __init__(
        self,
        vectors: Floats,
        targets: Integers,
        *,
        biases: Floats | None = None,
        excluded: ExcludedItems | None = None,
    ) -> None:
        """`vectors` [n_items, d], `biases` [n_items]; item indices are 0..n_items-1. `targets` [n]: one for every row.

        Activations to come must be in the order of `targets`. InvalidRequestError when the arrays do not fit.
        """
        items, n = len(vectors), len(targets)
        if excluded is None:
            excluded = ExcludedItems(np.zeros(n + 1, np.int64), np.zeros(0, np.int64))
        if n and not 0 <= int(targets.min()) <= int(targets.max()) < items:
            raise InvalidRequestError(f"targets must be item indices 0..{items - 1}")
        if len(excluded.items) and not 0 <= int(excluded.items.min()) <= int(excluded.items.max()) < items:
            raise InvalidRequestError(f"excluded items must be item indices 0..{items - 1}")
        if len(excluded.offsets) != n + 1 or int(excluded.offsets[-1]) != len(excluded.items):
            raise InvalidRequestError(
                f"offsets of excluded items must have {n + 1} entries and end at {len(excluded.items)}"
            )
        self._vectors, self._targets, self._biases, self._excluded = vectors, targets, biases, excluded

    def __call__(self, x: Floats) -> Rankings:
        """Rankings of activations `x` float32 [n, d]. An excluded target ranks nowhere; ties rank the target last."""
        n, d = len(self._targets), self._vectors.shape[1]
        if x.shape != (n, d):
            raise InvalidRequestError(f"expected activations [{n}, {d}], one row per target, got {list(x.shape)}")
        ranks = np.zeros(n, np.int64)
        lists = np.full((n, min(DEPTH, len(self._vectors))), NO_ITEM, np.int64)
        step = max(1, _SCORES_AT_ONCE // max(1, len(self._vectors)))
        for begin in range(0, n, step):
            rows = slice(begin, min(begin + step, n))
            scores = self._scores(x, rows)
            ranks[rows] = ranks_from_scores(scores, self._targets[rows])
            lists[rows] = _best(scores, lists.shape[1])
        return Rankings(ranks, lists)

    def _scores(self, x: Floats, rows: slice) -> Floats:
        scores: Floats = x[rows].astype(np.float32, copy=False) @ self._vectors.T
        if self._biases is not None:
            scores += self._biases
        offsets = self._excluded.offsets[rows.start : rows.stop + 1]
        owners = np.repeat(np.arange(len(scores)), np.diff(offsets))
        scores[owners, self._excluded.items[offsets[0] : offsets[-1]]] = -np.inf
        return scores


def _best(scores: Floats, m: int) -> NDArray[np.int64]:
    """The `m` best items of each row of `scores` [n, n_items], best first: int64 [n, m]; NO_ITEM where -inf."""
    best = np.argpartition(scores, scores.shape[1] - m, axis=1)[:, scores.shape[1] - m :]
    own = np.take_along_axis(scores, best, axis=1)
    order = np.lexsort((best, -own), axis=1)
    best, own = np.take_along_axis(best, order, axis=1), np.take_along_axis(own, order, axis=1)
    return np.where(np.isfinite(own), best, NO_ITEM)
