"""What a concept does to the ranking of any head, by finite difference: lists with the latent added, minus without.

For a panel of users every latent is added at strength 1, and the change of an item's score is averaged over the panel
and divided by what was added. A recommender tells the beginning of a list only; an item beyond it is taken to have the
list's last score, so that changes of items far down are understated, never invented. The panel shrinks as latents grow,
so that at most 16,384 lists are asked for, or one per latent. Not here: who ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.outputs import Outputs, outputs_of

_LISTS, _PANEL = 16_384, 16
# Latents x panel x items of float32: 64 MB.
_SCRATCH_FLOATS = 1 << 24


@dataclass(frozen=True)
class ScoredLists:
    """The beginning of the ranking of n activations, best first: item indices int32 and scores float32 [n, k].

    Index 0 stands for items nobody asks about.
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float32]


# Lists of activations [n, d], all of one length, nothing excluded.
Rank = Callable[[NDArray[np.float32]], ScoredLists]


def output_differences(
    w_dec: NDArray[np.float32], unit: NDArray[np.float32], x: NDArray[np.float32], rank: Rank, n_items: int
) -> Outputs:
    """Outputs of all latents `w_dec` [w, d] of which `unit` [w] > 0 is a strong firing; the panel is drawn from `x`."""
    size = min(len(x), max(1, min(_PANEL, _LISTS // len(w_dec))))
    panel = x[np.unique(np.linspace(0, len(x) - 1, size).astype(np.int64))]
    before = _dense(rank(panel), n_items)
    return outputs_of(_changes(w_dec, unit, panel, before, rank, n_items), n_items)


@dataclass(frozen=True)
class _Dense:
    """Scores [n, n_items], those beyond the list at its last score, and which are in the list."""

    scores: NDArray[np.float32]
    listed: NDArray[np.bool_]


def _changes(
    w_dec: NDArray[np.float32],
    unit: NDArray[np.float32],
    panel: NDArray[np.float32],
    before: _Dense,
    rank: Rank,
    n_items: int,
) -> Iterator[NDArray[np.float32]]:
    step = max(1, _SCRATCH_FLOATS // (len(panel) * n_items))
    for at in range(0, len(w_dec), step):
        added = w_dec[at : at + step] * unit[at : at + step, None]
        steered = (panel[None] + added[:, None]).reshape(-1, panel.shape[1])
        after = _dense(rank(np.ascontiguousarray(steered, np.float32)), n_items)
        shape = (len(added), len(panel), n_items)
        known = after.listed.reshape(shape) | before.listed[None]
        change = np.where(known, after.scores.reshape(shape) - before.scores[None], 0).mean(axis=1)
        change -= change.mean(axis=1, keepdims=True)
        yield (change / unit[at : at + step, None]).astype(np.float32)


def _dense(lists: ScoredLists, n_items: int) -> _Dense:
    rows = np.arange(len(lists.items))[:, None]
    scores = np.repeat(lists.scores[:, -1:], n_items + 1, axis=1)
    listed = np.zeros(scores.shape, bool)
    scores[rows, lists.items] = lists.scores
    listed[rows, lists.items] = True
    return _Dense(scores[:, 1:], listed[:, 1:])
