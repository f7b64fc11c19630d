"""Batches of (user, item the user took, item the user did not take), for losses that compare the two. Pure numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.schema import Histories

_REDRAWS = 50  # a user who took nine tenths of the catalogue keeps a wrong negative in 0.5 % of the draws

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Triples:
    """users int64 [n] from 0, positives and negatives int64 [n], items from 1."""

    users: Ints
    positives: Ints
    negatives: Ints


class NegativeSampler:
    """Draws items evenly among those a user has not taken."""

    def __init__(self, histories: Histories, n_items: int) -> None:
        """Memory: one int64 per interaction."""
        self._n_items = n_items
        self._taken = np.unique(histories.users * (n_items + 1) + histories.items)

    def draw(self, users: Ints, count: int, random: np.random.Generator) -> Ints:
        """Items int64 [len(users), count], each not taken by its user as far as fifty draws can tell."""
        drawn = random.integers(1, self._n_items + 1, (len(users), count))
        rows, columns = np.nonzero(self.taken(users[:, None], drawn))
        for _ in range(_REDRAWS):
            if not len(rows):
                break
            drawn[rows, columns] = random.integers(1, self._n_items + 1, len(rows))
            again = self.taken(users[rows], drawn[rows, columns])
            rows, columns = rows[again], columns[again]
        return drawn

    def taken(self, users: Ints, items: Ints) -> NDArray[np.bool_]:
        """Whether the users took the items; shapes broadcast."""
        keys = users * (self._n_items + 1) + items
        at = np.minimum(np.searchsorted(self._taken, keys), len(self._taken) - 1)
        found: NDArray[np.bool_] = self._taken[at] == keys
        return found


def triples(
    histories: Histories, sampler: NegativeSampler, batch: int, random: np.random.Generator
) -> Iterator[Triples]:
    """Every interaction once, in random order, `batch` at a time, each with an item its user did not take."""
    users, items = histories.users, histories.items
    order = random.permutation(len(items))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        negatives = sampler.draw(users[chosen], 1, random)[:, 0]
        yield Triples(users[chosen], items[chosen].astype(np.int64), negatives)
