"""Near misses: rows on which a latent was about to fire, and others took its place.

Of every row of the construction sample the four latents just below the cut are looked at: those with the largest score
> 0 among the ones that do not fire. The sample is bounded, so this is too, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.evidence_draws import first_of_each, rank_in_group
from recsae.concepts.firings import Firings

# Scores before anything is cut: float32 [n, w] of activations [n, d].
Scores = Callable[[NDArray[np.float32]], NDArray[np.float32]]

SHOWN = 3
_BELOW_THE_CUT = 4
_SCRATCH_FLOATS = 1 << 22


@dataclass(frozen=True)
class NearMisses:
    """By latent, closest to the cut first: `latent`, `row` int64 [m] and `score` float32 [m], the value it missed."""

    latent: NDArray[np.int64]
    row: NDArray[np.int64]
    score: NDArray[np.float32]


def near_misses(x: NDArray[np.float32], firings: Firings, users: NDArray[np.int32], scores: Scores) -> NearMisses:
    """At most 3 per latent, of distinct users, closest to the row's weakest firing first; rows of `x` [n, d]."""
    by_row = firings.by_latent.tocsc()
    parts = []
    step = max(1, _SCRATCH_FLOATS // firings.width)
    for at in range(0, len(x), step):
        rows = slice(at, min(at + step, len(x)))
        parts.append(_of_block(by_row[:, rows], scores(x[rows]), at))
    latent, row, score, closeness = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((row, -closeness, latent))
    kept = order[first_of_each(latent[order], users[row[order]])]
    kept = kept[rank_in_group(latent[kept]) < SHOWN]
    return NearMisses(latent[kept], row[kept], score[kept])


def _of_block(
    fired: sparse.csc_matrix, scores: NDArray[np.float32], at: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Latent, row, score and closeness (score over the row's weakest firing) of all near misses of a block."""
    per_row = np.diff(fired.indptr)
    rows = np.repeat(np.arange(len(scores)), per_row)
    weakest = np.full(len(scores), np.inf, np.float32)
    np.minimum.at(weakest, rows, fired.data)
    silent = scores.copy()
    silent[rows, fired.indices] = -np.inf
    below = min(_BELOW_THE_CUT, silent.shape[1])
    latent = np.argpartition(-silent, below - 1, axis=1)[:, :below].astype(np.int64)
    score = np.take_along_axis(silent, latent, axis=1)
    near = (score > 0) & (per_row > 0)[:, None]
    row = np.broadcast_to(np.arange(len(scores))[:, None], near.shape)[near]
    return latent[near], row + at, score[near], score[near] / weakest[row]
