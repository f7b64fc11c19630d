"""The head over a batch of rows that ask for different list lengths, exclusions and candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsae.recommenders.inputs import stack_indices
from recsae.recommenders.ranked import Ranked
from recsae.recommenders.runtime import OnnxRecommender

_NO_ITEMS: NDArray[np.int64] = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class RankAsk:
    """What one row asks of the head: list length, and item indices int64 [e] and [c] (None = every item)."""

    k: int
    exclude: NDArray[np.int64] = field(default_factory=lambda: _NO_ITEMS)
    candidates: NDArray[np.int64] | None = None


class RankedList(NamedTuple):
    """One list, best first: item indices, from 1, and the model's scores."""

    indices: list[int]
    scores: list[float]


def rank_rows(
    recommender: OnnxRecommender,
    activation: NDArray[np.float32],
    passthrough: Mapping[str, NDArray[Any]],
    asks: Sequence[RankAsk],
    pairs: NDArray[np.int64] | None = None,
) -> list[RankedList]:
    """The list of each of the n lists of `activation` as `OnnxRecommender.rank` takes it, best first.

    `pairs` int64 [n, c] are the candidates of a model that scores pairs. Elsewhere, lists with candidates go through
    the graph apart from the others, because no candidates means every item; the usual batch, where no list has any,
    is passed on as it is.
    """
    if pairs is not None:
        k = max(ask.k for ask in asks)
        exclude = stack_indices([ask.exclude for ask in asks])
        return _lists(recommender.rank(activation, passthrough, k=k, exclude=exclude, candidates=pairs), asks)
    groups = [
        [row for row, ask in enumerate(asks) if (ask.candidates is None) is everything] for everything in (True, False)
    ]
    if all(ask.candidates is None for ask in asks):
        return _rank_group(recommender, activation, passthrough, asks)
    lists: list[RankedList] = [RankedList([], [])] * len(asks)
    for rows in groups:
        if not rows:
            continue
        crossing = {name: tensor[rows] for name, tensor in passthrough.items()}
        found = _rank_group(recommender, activation[rows], crossing, [asks[row] for row in rows])
        for row, ranked in zip(rows, found, strict=True):
            lists[row] = ranked
    return lists


def _rank_group(
    recommender: OnnxRecommender,
    activation: NDArray[np.float32],
    passthrough: Mapping[str, NDArray[Any]],
    asks: Sequence[RankAsk],
) -> list[RankedList]:
    """Of lists that all have candidates, or all none."""
    named = [ask.candidates for ask in asks if ask.candidates is not None]
    ranked = recommender.rank(
        activation,
        passthrough,
        k=max(ask.k for ask in asks),
        exclude=stack_indices([ask.exclude for ask in asks]),
        candidates=stack_indices(named) if named else None,
    )
    return _lists(ranked, asks)


def _lists(ranked: Ranked, asks: Sequence[RankAsk]) -> list[RankedList]:
    # Masked places (excluded, padding) score -inf and sort last.
    filled = (ranked.scores > -np.inf).sum(axis=1).tolist()
    items, scores = ranked.items.tolist(), ranked.scores.tolist()
    lists = []
    for row, ask in enumerate(asks):
        end = min(ask.k, filled[row])
        lists.append(RankedList(items[row][:end], scores[row][:end]))
    return lists
