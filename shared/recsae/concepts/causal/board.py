"""Scores of a panel's users over the catalogue, laid out so that many directions can be tried on them quickly.

A direction v moves item i's score by `size * (v . E_i)` for every user, so all that is needed of a user is one row of
scores. Items are ordered by their mean score and cut into blocks of 16; a block whose best score plus largest effect
stays below what it takes to enter a list need not be looked at. Not here: what is done with lists (`turning`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.causal.panel import Panel
from recsae.errors import InvalidRequestError

BLOCK = 16
DEPTH = 10
# Stands for "never": far below any score, and finite, so that adding an effect to it stays harmless.
NEVER = np.float32(-1e30)
_SCORES_AT_ONCE = 1 << 24  # 64 MiB

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Head:
    """A dot-product head: score of item i = x . vectors[i] + biases[i]. [n_items + 1, d] and [n_items + 1]; 0 pads."""

    vectors: Floats
    biases: Floats | None = None

    def __post_init__(self) -> None:
        """InvalidRequestError unless there is a bias for every vector, or none at all."""
        if self.biases is not None and len(self.biases) != len(self.vectors):
            raise InvalidRequestError(
                f"{len(self.biases)} biases for {len(self.vectors)} item vectors; take both from one model"
            )

    @property
    def n_items(self) -> int:
        """Number of items, padding not counted."""
        return len(self.vectors) - 1

    def scores(self, x: Floats) -> Floats:
        """Scores float32 [n, n_items + 1] of activations [n, d], column 0 NEVER."""
        found: Floats = x @ self.vectors.T
        if self.biases is not None:
            found += self.biases
        found[:, 0] = NEVER
        return found


@dataclass(frozen=True)
class ItemLayout:
    """The catalogue in blocks: place p holds item `item[p]` (0 = nothing); `place[i]` is where item i lies."""

    item: Ints
    place: Ints

    @property
    def size(self) -> int:
        """Places, a multiple of the block."""
        return len(self.item)

    def effects(self, directions: Floats, head: Head) -> Floats:
        """`directions` [m, d] times the item vectors, float32 [m, size], 0 where there is no item."""
        found: Floats = directions.astype(np.float32) @ head.vectors[self.item].T
        found[:, self.item == 0] = 0.0
        return found

    def by_place(self, sets: sparse.csr_matrix) -> sparse.csr_matrix:
        """Membership of items in sets, [n_items + 1, m], as rows by place."""
        return sparse.csr_matrix(sets[self.item])


@dataclass(frozen=True)
class Scored:
    """Some users' scores in a layout.

    `rows`: which of the panel; `scores` float32 [n, size], consumed items NEVER; `high` float32 [n, blocks] the largest
    of each block; `top` int32 [n, 10] the unsteered list as places, best first; `target` int32 [n] places and
    `target_score` float32 [n].
    """

    rows: slice
    scores: Floats
    high: Floats
    top: NDArray[np.int32]
    target: NDArray[np.int32]
    target_score: Floats


def lay_out(panel: Panel, head: Head) -> ItemLayout:
    """Items by their score for the mean user, best first, filled up to whole blocks."""
    mean = head.scores(panel.x.mean(axis=0, keepdims=True))[0]
    order = 1 + np.argsort(-mean[1:], kind="stable")
    size = max(BLOCK, -(-len(order) // BLOCK) * BLOCK)
    item = np.zeros(size, np.int64)
    item[: len(order)] = order
    place = np.zeros(head.n_items + 1, np.int64)
    place[order] = np.arange(len(order))
    return ItemLayout(item, place)


def scored(panel: Panel, head: Head, layout: ItemLayout) -> Iterator[Scored]:
    """The panel's scores, some users at a time: bounded memory whatever the catalogue."""
    step = max(1, _SCORES_AT_ONCE // layout.size)
    for begin in range(0, len(panel), step):
        rows = slice(begin, min(begin + step, len(panel)))
        yield _scored(panel, head, layout, rows)


def _scored(panel: Panel, head: Head, layout: ItemLayout, rows: slice) -> Scored:
    scores = np.ascontiguousarray(head.scores(panel.x[rows])[:, layout.item])
    target = layout.place[panel.target[rows]]
    own = scores[np.arange(len(scores)), target]
    first, last = panel.offsets[rows.start], panel.offsets[rows.stop]
    lengths = np.diff(panel.offsets[rows.start : rows.stop + 1])
    scores[np.repeat(np.arange(len(scores)), lengths), layout.place[panel.consumed[first:last]]] = NEVER
    return Scored(
        rows,
        scores,
        np.ascontiguousarray(scores.reshape(len(scores), -1, BLOCK).max(axis=2)),
        best_places(scores),
        target.astype(np.int32),
        own.astype(np.float32),
    )


def best_places(scores: Floats) -> NDArray[np.int32]:
    """Places of the ten best of each row, best first, the earlier of equals first: int32 [n, 10]."""
    if scores.shape[1] <= 4 * DEPTH:
        return np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH].astype(np.int32)
    tenth = -np.partition(-scores, DEPTH - 1, axis=1)[:, DEPTH - 1]
    found = np.empty((len(scores), DEPTH), np.int32)
    for row, least in enumerate(tenth):
        near = np.flatnonzero(scores[row] >= least)
        found[row] = near[np.argsort(-scores[row, near], kind="stable")[:DEPTH]]
    return found
