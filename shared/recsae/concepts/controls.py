"""Controls beside scores: what labels of other concepts, a constant and popularity reach (docs/method.md, section 5).

Label swaps: up to 100 labels of other concepts of like density, tested on this concept's cases. Their
95th percentile is what a label must beat. Not here: the untrained recommender (its own dictionary, see `summary`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.cases import Cases
from recsae.concepts.rules import Predictor

SWAPS = 100
_PERCENTILE = 0.95
# In a small dictionary deciles would hold too few labels for a 95th percentile of 100: fewer groups then.
_LEAST_PER_GROUP = SWAPS + 1
_DECILES = 10


@dataclass(frozen=True)
class Swaps:
    """What labels of other concepts reach, per latent.

    `balanced_f1` float64 [w] is the 95th percentile over swapped labels; `at_percentile` int64 [w] the latent whose
    label stands at the 95th percentile of natural F1, `random` int64 [w] one drawn at random (-1 = no other label) and
    `random_f1` float64 [w] the balanced F1 of that one.
    """

    balanced_f1: NDArray[np.float64]
    at_percentile: NDArray[np.int64]
    random: NDArray[np.int64]
    random_f1: NDArray[np.float64]


def swap_labels(
    cases: Cases,
    predict: Predictor,
    density: NDArray[np.float32],
    labelled: NDArray[np.bool_],
    *,
    seed: int = 0,
) -> Swaps:
    """Tests labels of other concepts; `labelled` [w] says which latents have one.

    Works by tenths of the density, so the cross table is at most a tenth of width x width; in fewer groups of more
    than a hundred where there are fewer than a thousand labels.
    """
    width = cases.width
    swaps = Swaps(np.zeros(width), np.full(width, -1), np.full(width, -1), np.zeros(width))
    rng = np.random.default_rng(seed)
    live = np.flatnonzero(labelled)
    order = live[np.argsort(density[live], kind="stable")]
    for members in np.array_split(order, max(1, min(_DECILES, len(order) // _LEAST_PER_GROUP))):
        if len(members) > 1:
            _swap_within(cases, predict, members, rng, swaps)
    return swaps


def _swap_within(
    cases: Cases, predict: Predictor, members: NDArray[np.int64], rng: np.random.Generator, swaps: Swaps
) -> None:
    natural, balanced = cross_f1(cases, predict, members)
    m = len(members)
    # The others in one random order, each row of the table shifted past itself: no label meets its own concept.
    others = rng.permutation(m)
    place = np.empty(m, np.int64)
    place[others] = np.arange(m)
    drawn = others[(place[:, None] + 1 + np.arange(min(SWAPS, m - 1))[None, :]) % m]
    at = int(np.ceil(_PERCENTILE * drawn.shape[1])) - 1
    by_natural = np.take_along_axis(natural.T, drawn, axis=1)
    by_balanced = np.take_along_axis(balanced.T, drawn, axis=1)
    chosen = np.argsort(by_natural, axis=1, kind="stable")[:, at]
    swaps.at_percentile[members] = members[drawn[np.arange(m), chosen]]
    swaps.balanced_f1[members] = np.sort(by_balanced, axis=1)[:, at]
    swaps.random[members] = members[drawn[:, 0]]
    swaps.random_f1[members] = by_balanced[:, 0]


def cross_f1(
    cases: Cases, predict: Predictor, members: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F1 at the natural mix and balanced F1 of label i on the cases of latent j, float64 [m, m] each."""
    predicted = predict(members).tocsr().astype(np.float32)
    tp = _meet(predicted, cases.strong[members])
    fired = _meet(predicted, cases.fired(members))
    called = np.asarray(predicted.sum(axis=1)).reshape(-1, 1)
    positives = cases.positives[members].astype(np.float64)
    negatives = cases.rows - np.diff(cases.fired(members).indptr)
    fp = called - fired
    natural = 2 * tp / np.maximum(positives + tp + fp, 1)
    recall = tp / np.maximum(positives, 1)
    balanced = 2 * recall / (1 + recall + fp / np.maximum(negatives, 1))
    return natural, balanced


def swapped(predict: Predictor, source: NDArray[np.int64]) -> Predictor:
    """Predicts each latent by the label of `source[latent]`; never where there is none (-1)."""

    def predict_swapped(latents: NDArray[np.int64]) -> sparse.csr_matrix:
        taken = source[latents]
        present = sparse.diags((taken >= 0).astype(np.float32))
        matrix = (present @ predict(np.maximum(taken, 0)).astype(np.float32)).tocsr()
        matrix.eliminate_zeros()
        return matrix

    return predict_swapped


def always_true_f1(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 at the natural mix of a label that always holds, 2 p / (1 + p); balanced, it is 2/3."""
    share = positives / np.maximum(positives + negatives, 1)
    f1: NDArray[np.float64] = 2 * share / (1 + share)
    return f1


def _meet(one: sparse.csr_matrix, other: sparse.csr_matrix) -> NDArray[np.float64]:
    together: NDArray[np.float64] = (one @ other.T).toarray().astype(np.float64)
    return together
