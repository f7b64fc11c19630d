"""What becomes of lists and targets when users are moved along directions by given sizes: the inner loop, compiled.

For every user, direction and dose: the gain of the target (NDCG@10), how many of the ten listed belong to the
direction's own set of items, how many of the unsteered ten remain; and per direction and dose how many listed items
belong to each set. numba compiles the loop where it is installed; otherwise numpy does the same, more slowly.
Not here: which doses (`doses`), what the counts mean (`measuring`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.causal import plain
from recsae.concepts.causal.board import BLOCK, DEPTH, NEVER, Head, ItemLayout, Scored, lay_out, scored
from recsae.concepts.causal.panel import Panel

_turn: Callable[..., None] = plain.turn
# numba is part of the worker, not of every installation.
with suppress(ImportError):
    from recsae.concepts.causal import compiled

    _turn = compiled.turn

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
# Gain of a target by its place, 1 to 10: NDCG@10 of one relevant item. Place 0 stands for "not listed".
GAINS = np.concatenate([[0.0], 1.0 / np.log2(np.arange(1, DEPTH + 1) + 1.0)]).astype(np.float32)


@dataclass(frozen=True)
class Outcomes:
    """Per direction c, dose t and panel user u.

    `gains` float32 [c, t, n]; `hits` and `kept` uint8 [c, t, n]: of the ten listed, those in the direction's own set,
    and those that the unsteered list holds too; `totals` int64 [c, t, m]: listed items in each set, over
    the users that were moved and whose outcome was not taken from another dose.
    `base_gains` float32 [n], `base_hits` uint8 [c, n] and `base_totals` int64 [m] are those of the unsteered lists.
    """

    gains: Floats
    hits: NDArray[np.uint8]
    kept: NDArray[np.uint8]
    totals: Ints
    base_gains: Floats
    base_hits: NDArray[np.uint8]
    base_totals: Ints


class Turntable:
    """A panel ready to be moved along directions. Keeps scores of what fits 64 MiB, else makes them again each time."""

    def __init__(self, panel: Panel, head: Head, sets: sparse.csr_matrix) -> None:
        """`sets` 0/1 [n_items + 1, m]: the item sets that are counted."""
        self.panel, self.head, self.sets = panel, head, sets
        self.layout: ItemLayout = lay_out(panel, head)
        by_place = self.layout.by_place(sets)
        self._sets = (by_place.indptr.astype(np.int64), by_place.indices.astype(np.int64))
        self._kept: list[Scored] | None = None

    def _scored(self) -> Iterable[Scored]:
        if self._kept is not None:
            return self._kept
        parts = scored(self.panel, self.head, self.layout)
        first = next(parts)
        if first.rows.stop == len(self.panel):
            self._kept = [first]
            return self._kept
        return scored(self.panel, self.head, self.layout)

    def unsteered(self) -> Ints:
        """Items of the unsteered lists, int64 [n, 10], best first; 0 where a list is shorter."""
        listed = [
            np.where(np.take_along_axis(part.scores, part.top, axis=1) > NEVER / 2, self.layout.item[part.top], 0)
            for part in self._scored()
        ]
        return np.concatenate(listed)

    def base_gains(self) -> Floats:
        """NDCG@10 gain of every user's target in the unsteered lists, float32 [n]."""
        n, d = self.panel.x.shape
        return self.turn(
            np.zeros((1, d), np.float32), np.zeros((1, 1, n), np.float32), np.zeros(1, np.int64)
        ).base_gains

    def turn(self, directions: Floats, deltas: Floats, own: Ints, same_as: Ints | None = None) -> Outcomes:
        """Moves row u by `deltas[c, t, u]` along `directions[c]`; `own` int64 [c] names each direction's set.

        `directions` float32 [c, d], `deltas` float32 [c, t, n]. `same_as` int64 [t] names an earlier dose whose outcome
        is taken wherever the two deltas are equal (-1 = none). Exact: nothing is pruned that could enter a list.
        """
        effects = self.layout.effects(directions, self.head)
        blocks = effects.reshape(len(effects), -1, BLOCK)
        high, low = np.ascontiguousarray(blocks.max(axis=2)), np.ascontiguousarray(blocks.min(axis=2))
        count, doses, n = deltas.shape
        same_as = np.full(doses, -1, np.int64) if same_as is None else same_as
        sets = int(self.sets.shape[1])
        made = Outcomes(
            np.zeros((count, doses, n), np.float32),
            np.zeros((count, doses, n), np.uint8),
            np.zeros((count, doses, n), np.uint8),
            np.zeros((count, doses, sets), np.int64),
            np.zeros(n, np.float32),
            np.zeros((count, n), np.uint8),
            np.zeros(sets, np.int64),
        )
        for part in self._scored():
            span = part.rows
            _turn(
                part.scores, part.high, part.top, part.target, part.target_score,
                effects, high, low, np.ascontiguousarray(deltas[:, :, span], np.float32), own, same_as,
                *self._sets, GAINS,
                made.gains[:, :, span], made.hits[:, :, span], made.kept[:, :, span], made.totals,
                made.base_gains[span], made.base_hits[:, span], made.base_totals,
            )  # fmt: skip
        return made
