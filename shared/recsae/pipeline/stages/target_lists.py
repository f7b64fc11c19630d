"""Ranked lists of a recommender as numbers, with the places of the items that were to be found. Not here: who ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsae.pipeline.sources import Floats, RankedItems
from recsae.recommenders.metrics import ranks_in_lists
from recsae.sae.rankings import NO_ITEM, Rankings

# One more than the largest cut-off, so that a tie at the cut-off is seen.
LIST_LENGTH = 21


class TargetLists:
    """Items are numbered alike in every call; those that only the model knows get a number when they are listed."""

    def __init__(self, target_ids: Sequence[str]) -> None:
        """`target_ids`: the item to be found in each list."""
        self._numbers: dict[str, int] = {}
        self._targets = self._numbered(target_ids)

    def rankings(self, lists: Sequence[RankedItems], span: slice) -> Rankings:
        """The lists and the places of the targets of `span` in them: ties last, `NOWHERE` beyond the list of 21."""
        items, scores = self._table(lists)
        return Rankings(ranks_in_lists(items, scores, self._targets[span]), items)

    def _table(self, lists: Sequence[RankedItems]) -> tuple[NDArray[np.int64], Floats]:
        """Item numbers int64 and scores float32, both [n, 21]; `NO_ITEM` and -inf behind the end of a list."""
        filled = np.arange(LIST_LENGTH) < np.array([len(ranked.item_ids) for ranked in lists])[:, None]
        items = np.full(filled.shape, NO_ITEM, np.int64)
        scores = np.full(filled.shape, -np.inf, np.float32)
        items[filled] = self._numbered([item_id for ranked in lists for item_id in ranked.item_ids])
        scores[filled] = [score for ranked in lists for score in ranked.scores]
        return items, scores

    def _numbered(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        numbers = self._numbers
        return np.array([numbers.setdefault(item_id, len(numbers)) for item_id in item_ids], np.int64)
