"""Item-set rules: "one of at most six items is among the newest one, two or three", for all latents at once.

They memorise more easily than facet rules do, so they are a class of their own and name only items of the seen
70 %. With one newest item the events exclude each other and the best set maximises 2 sum TP / (P + sum predicted):
a fractional programme that Dinkelbach's iteration solves exactly by keeping the six items of largest
2 TP - F1 * predicted. For two and three newest items events rarely overlap; the same choice is made and its F1 is an
approximation used only to choose the window. Not here: scoring on other users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.describing import MIN_POSITIVES
from recsae.concepts.features import NEWEST, RowFeatures
from recsae.concepts.rules import MAX_SET_ITEMS, ItemSets, occurrences

# Only items with many true positives can be among the best six.
_CANDIDATES = 48
_ITERATIONS = 8

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FittedSets:
    """The sets and their F1 on the rows they were fitted to, float32 [w]."""

    sets: ItemSets
    f1: Floats


def fit_item_sets(
    features: RowFeatures, strong: sparse.csr_matrix, weak: sparse.csr_matrix, usable: NDArray[np.bool_]
) -> FittedSets:
    """Sets for all latents from 0/1 CSR [w, n] cases; `usable` [n_items + 1] says which items may be named."""
    width, n_items = strong.shape[0], len(usable) - 1
    positives = np.diff(strong.indptr).astype(np.float64)
    best = FittedSets(
        ItemSets(np.zeros((width, MAX_SET_ITEMS), np.int32), np.zeros(width, np.int8)), np.zeros(width, np.float32)
    )
    for window in range(1, NEWEST + 1):
        item_rows = occurrences(features, window, n_items)
        totals = np.diff(item_rows.indptr).astype(np.float64)
        items, tp = _candidates((strong @ item_rows.T).tocsr(), usable)
        weak_hits = _looked_up((weak @ item_rows.T).tocsr(), items)
        chosen, f1 = _best_six(tp, totals[items] - weak_hits, positives)
        wins = (f1 > best.f1) & (positives >= MIN_POSITIVES)
        sets = ItemSets(
            np.where(wins[:, None], _packed(items, chosen), best.sets.items),
            np.where(wins, window, best.sets.window).astype(np.int8),
        )
        best = FittedSets(sets, np.where(wins, f1, best.f1).astype(np.float32))
    return best


def _candidates(hits: sparse.csr_matrix, usable: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The items [w, 48] with most true positives of each latent (0 = none), and those counts."""
    width = hits.shape[0]
    latents = np.repeat(np.arange(width), np.diff(hits.indptr))
    kept = usable[hits.indices]
    latents, items, counts = latents[kept], hits.indices[kept], hits.data[kept]
    order = np.lexsort((items, -counts, latents))
    latents, items, counts = latents[order], items[order], counts[order]
    rank = np.arange(len(latents)) - np.searchsorted(latents, latents)
    top = rank < _CANDIDATES
    table = np.zeros((width, _CANDIDATES), np.int32)
    tp = np.zeros((width, _CANDIDATES))
    table[latents[top], rank[top]], tp[latents[top], rank[top]] = items[top], counts[top]
    return table, tp


def _looked_up(matrix: sparse.csr_matrix, columns: NDArray[np.int32]) -> NDArray[np.float64]:
    """Entries of CSR [w, items] at `columns` [w, m]."""
    rows = np.repeat(np.arange(len(columns)), columns.shape[1])
    found: NDArray[np.float64] = np.asarray(matrix[rows, columns.ravel()], np.float64).reshape(columns.shape)
    return found


def _best_six(
    tp: NDArray[np.float64], predicted: NDArray[np.float64], positives: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], Floats]:
    """Which candidates to take, bool [w, m], and the F1 that gives, float32 [w]."""
    f1 = np.zeros(len(tp))
    chosen = np.zeros(tp.shape, bool)
    for _ in range(_ITERATIONS):
        worth = np.where(tp > 0, 2 * tp - f1[:, None] * predicted, -np.inf)
        order = np.argsort(-worth, axis=1, kind="stable")[:, :MAX_SET_ITEMS]
        chosen = np.zeros(tp.shape, bool)
        np.put_along_axis(chosen, order, np.take_along_axis(worth, order, axis=1) > 0, axis=1)
        below = positives + (predicted * chosen).sum(axis=1)
        f1 = np.divide(2 * (tp * chosen).sum(axis=1), below, out=np.zeros(len(tp)), where=below > 0)
    return chosen, f1.astype(np.float32)


def _packed(items: NDArray[np.int32], chosen: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The chosen items [w, 6], those with most true positives first, 0 where fewer are chosen."""
    order = np.argsort(~chosen, axis=1, kind="stable")[:, :MAX_SET_ITEMS]
    kept = np.take_along_axis(np.where(chosen, items, 0), order, axis=1)
    return kept.astype(np.int32)
