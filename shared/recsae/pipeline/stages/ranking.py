"""Ranks of held-out users' targets, by the recommender itself: full ranking, history items left out.

Goes through the recommender's contract, so what it measures holds for the model that is served. Not here: quality from
ranks and its intervals (`recsae.sae.fidelity`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.pipeline.sources import Floats, ItemSource, RankedItems, SourceModel
from recsae.pipeline.stages.material import RunData, newest_rows
from recsae.recommenders.metrics import NOWHERE
from recsae.sae.shards import ShardReader

# One more than the largest cut-off, so that a tie at the cut-off is seen.
_LIST_LENGTH = 21
_ROWS_PER_CALL = 512


@dataclass(frozen=True)
class TargetRows:
    """Newest activation float32 [n, d] of users with a test target; `users` int64 [n]."""

    users: NDArray[np.int64]
    x: Floats


def target_rows(rows: ShardReader, data: RunData, most: int) -> TargetRows:
    """The newest row of each user that has a test target; at most `most` users, spread evenly over the shards."""
    users, x = [np.zeros(0, np.int64)], [np.zeros((0, rows.d), np.float32)]
    for shard in rows.shards():
        newest = newest_rows(shard, data)
        newest = newest[data.targets[shard.user[newest]] > 0]
        users.append(shard.user[newest].astype(np.int64))
        x.append(shard.x[newest])
    everyone = np.concatenate(users)
    kept = np.linspace(0, len(everyone) - 1, most).astype(np.int64) if len(everyone) > most else slice(None)
    return TargetRows(everyone[kept], np.ascontiguousarray(np.concatenate(x)[kept]))


class TargetRanker:
    """Ranks the targets of fixed users from any activations of theirs; `check` is called between requests."""

    def __init__(
        self, source: ItemSource, model: SourceModel, data: RunData, users: NDArray[np.int64], check: Callable[[], None]
    ) -> None:
        """`users` int64 [n], in the order of the activations to come."""
        self._source, self._model, self._check = source, model, check
        self._targets = data.item_ids(data.targets[users])
        self._exclude = [data.item_ids(data.histories.of(int(user))) for user in users]

    def __call__(self, x: Floats) -> NDArray[np.int64]:
        """Ranks int64 [n], from 1; `NOWHERE` for targets beyond the list. Ties rank the target last."""
        ranks: list[int] = []
        for begin in range(0, len(x), _ROWS_PER_CALL):
            self._check()
            span = slice(begin, begin + _ROWS_PER_CALL)
            lists = self._source.rank(self._model, x[span], _LIST_LENGTH, self._exclude[span])
            ranks += [_rank(ranked, target) for ranked, target in zip(lists, self._targets[span], strict=True)]
        return np.array(ranks, np.int64)


def _rank(ranked: RankedItems, target: str) -> int:
    if target not in ranked.item_ids:
        return int(NOWHERE)
    own = ranked.scores[ranked.item_ids.index(target)]
    return sum(score >= own for score in ranked.scores)
