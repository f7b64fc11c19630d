"""Ranking quality from ranks: hit ratio and NDCG at k, and the popularity baseline. Pure numpy.

A rank counts from 1 among all items the user has not consumed. Ties are pessimistic: every item that scores as much as
the target ranks before it, so a model that scores everything alike gets nothing. A target the user consumed before can
never be returned and ranks nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.schema import Histories

NOWHERE = np.iinfo(np.int64).max
CUTOFFS = (5, 10, 20)


def ranks_from_scores(scores: NDArray[np.float32], targets: NDArray[np.integer]) -> NDArray[np.int64]:
    """Ranks int64 [n] of `targets` [n] from scores [n, n_items + 1], where consumed items and index 0 are -inf."""
    own = scores[np.arange(len(scores)), targets]
    ranks = (scores >= own[:, None]).sum(axis=1)
    return np.where(np.isfinite(own), ranks, NOWHERE).astype(np.int64)


def ranks_in_lists(
    items: NDArray[np.int64], scores: NDArray[np.float32], targets: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Ranks int64 [n] of `targets` [n] in ranked lists [n, m] (best first, -inf = unfilled); NOWHERE when not listed.

    Exact below m: a target tied with the last place ranks m at best, so fetch one more item than the cut-off.
    """
    found = (items == np.asarray(targets)[:, None]) & np.isfinite(scores)
    own = np.where(found, scores, -np.inf).max(axis=1, initial=-np.inf)
    ranks = (scores >= own[:, None]).sum(axis=1)
    return np.where(found.any(axis=1), ranks, NOWHERE).astype(np.int64)


def hit_ratio(ranks: NDArray[np.int64], k: int) -> float:
    """HR@k: the share of targets ranked k or better."""
    return float((ranks <= k).mean()) if len(ranks) else 0.0


def ndcg(ranks: NDArray[np.int64], k: int) -> float:
    """NDCG@k with one relevant item a user: the mean of `ndcg_gains`."""
    return float(ndcg_gains(ranks, k).mean()) if len(ranks) else 0.0


def ndcg_gains(ranks: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """float64 [n]: 1 / log2(rank + 1), 0 beyond k."""
    return np.where(ranks <= k, 1.0 / np.log2(np.minimum(ranks, k) + 1.0), 0.0)


def ranking_quality(ranks: NDArray[np.int64], cutoffs: Sequence[int] = CUTOFFS) -> Mapping[str, float]:
    """`hr@k` and `ndcg@k` for each cut-off."""
    measures = (("hr", hit_ratio), ("ndcg", ndcg))
    return {f"{name}@{k}": measure(ranks, k) for name, measure in measures for k in cutoffs}


def popularity_ranks(
    train: Histories, inputs: Histories, targets: NDArray[np.integer], n_items: int
) -> NDArray[np.int64]:
    """Ranks int64 [n_users] of `targets` [n_users] (0 = none) when items 1..n_items are ordered by count in `train`.

    Items of a user's `inputs` are left out, as for the model. Memory grows with items plus users, not with both.
    """
    counts = np.bincount(train.items, minlength=n_items + 1)
    by_count = np.sort(counts[1:])
    ranks = np.full(len(targets), NOWHERE, dtype=np.int64)
    for user in np.flatnonzero(targets):
        seen, own = np.unique(inputs.of(int(user))), counts[targets[user]]
        if targets[user] not in seen:
            at_least_as_popular = n_items - np.searchsorted(by_count, own, side="left")
            ranks[user] = at_least_as_popular - (counts[seen] >= own).sum()
    return ranks
