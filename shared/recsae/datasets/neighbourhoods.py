"""Items that are consumed together: groups found in histories, without the recommender that is being explained.

How often two items stand within a few places of each other, as positive pointwise mutual information (context counts to
the power .75), factorised (Levy and Goldberg 2014, NIPS; Levy, Goldberg and Dagan 2015, TACL 3), and cut by k-means.
Says what people mean by "films like Alien" where attributes do not. Not here: other facets (`facets`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.cluster.vq import kmeans2

from recsae.datasets.schema import Histories

_WINDOW = 5
_DIM = 48
_SMOOTHING = 0.75
_ITERATIONS = 30
# A group of fewer items on average would be a list of items.
_LEAST_ITEMS = 15
_LEAST_COUNT = 5

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Neighbourhood:
    """A group of items: `members` int64 item indices, the most typical (near the centre, often consumed) first."""

    members: NDArray[np.int64]


def neighbourhoods(histories: Histories, n_items: int, groups: int, seed: int = 0) -> tuple[Neighbourhood, ...]:
    """At most `groups` groups of items 1..n_items, every item consumed 5 times or more in at most one of them.

    Fewer where there would be fewer than 15 items in each; none for data too small.
    """
    counts = np.bincount(histories.items, minlength=n_items + 1)
    items = np.flatnonzero(counts >= _LEAST_COUNT)
    items = items[items > 0]
    groups = min(groups, len(items) // _LEAST_ITEMS)
    if groups < 2:
        return ()
    together = _together(histories, items, n_items)
    if not together.nnz:
        return ()
    vectors = _factors(together, seed)
    centres, group = kmeans2(vectors, groups, iter=_ITERATIONS, minit="++", seed=seed, missing="warn")
    similarity = np.einsum("nd,nd->n", vectors, centres[group])
    typical = similarity * np.log1p(counts[items])
    order = np.lexsort((items, -typical, group))
    ends = np.searchsorted(group[order], np.arange(groups), side="right")
    return tuple(Neighbourhood(items[part]) for part in np.split(order, ends[:-1]) if len(part))


def _together(histories: Histories, items: NDArray[np.int64], n_items: int) -> sparse.csr_matrix:
    """How often two of `items` [m] stand at most 5 places apart in one history, symmetric [m, m]."""
    place = np.full(n_items + 1, -1, np.int64)
    place[items] = np.arange(len(items))
    at, users = place[histories.items], histories.users
    counts = sparse.csr_matrix((len(items), len(items)), dtype=np.float32)
    for lag in range(1, _WINDOW + 1):
        both = (users[lag:] == users[:-lag]) & (at[lag:] >= 0) & (at[:-lag] >= 0)
        pairs = (at[lag:][both], at[:-lag][both])
        counts = counts + sparse.coo_matrix((np.ones(len(pairs[0]), np.float32), pairs), shape=counts.shape).tocsr()
    symmetric: sparse.csr_matrix = (counts + counts.T).tocsr()
    return symmetric


def _factors(counts: sparse.csr_matrix, seed: int) -> Floats:
    """Unit vectors [m, 48] (fewer for few items) of the items' associations; zero for an item with none."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    context = totals**_SMOOTHING
    context /= max(float(context.sum()), 1e-12)
    pairs = counts.tocoo()
    association = np.log(pairs.data / np.maximum(totals[pairs.row] * context[pairs.col], 1e-12))
    kept = association > 0
    matrix = sparse.csr_matrix((association[kept], (pairs.row[kept], pairs.col[kept])), shape=counts.shape)
    rank = min(_DIM, matrix.shape[0] - 1)
    start = np.random.default_rng(seed).normal(size=matrix.shape[0])
    left, singular, _ = sparse.linalg.svds(matrix.astype(np.float64), k=rank, v0=start)
    vectors = left * np.sqrt(singular)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
