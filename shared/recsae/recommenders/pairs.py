"""Lists from scores of (subject, candidate) pairs, for heads that score one pair at a time. Pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsae.recommenders.ranked import Ranked

Ints = NDArray[np.int64]


def rank_pairs(scores: NDArray[np.float32], candidates: Ints, exclude: Ints, k: int) -> Ranked:
    """The best k candidates of each row by `scores` float32 [n, c]; lower index first among equal scores.

    `candidates` int64 [n, c] and `exclude` int64 [n, e], 0 = none; masked places score -inf. A list shorter than k is
    filled up with index 0 at -inf.
    """
    shut = (candidates == 0) | _named(candidates, exclude)
    masked = np.where(shut, np.float32(-np.inf), scores)
    order = np.lexsort((candidates, -masked), axis=1)[:, :k]
    items, best = np.take_along_axis(candidates, order, axis=1), np.take_along_axis(masked, order, axis=1)
    missing = k - order.shape[1]
    if missing > 0:
        items = np.pad(items, ((0, 0), (0, missing)))
        best = np.pad(best, ((0, 0), (0, missing)), constant_values=-np.inf)
    return Ranked(items, best)


def _named(candidates: Ints, exclude: Ints) -> NDArray[np.bool_]:
    """Which candidates `exclude` of the same row names, bool [n, c]."""
    if not exclude.size:
        return np.zeros(candidates.shape, bool)
    # One number per (row, item), so that one sorted search serves all rows.
    width = int(max(candidates.max(initial=0), exclude.max(initial=0))) + 1
    row = np.arange(len(candidates), dtype=np.int64)[:, None] * width
    return np.isin(row + candidates, row + exclude)
