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
from recsae.pipeline.stages.material import RunData
from recsae.recommenders.metrics import NOWHERE
from recsae.sae.shards import ShardReader

# One more than the largest cut-off, so that a tie at the cut-off is seen.
_LIST_LENGTH = 21
_ROWS_PER_CALL = 512


@dataclass(frozen=True)
class TargetRows:
    """Rows that predict an item the recommender was not trained on: user, position int64 [n]; x float32 [n, d]."""

    users: NDArray[np.int64]
    positions: NDArray[np.int64]
    x: Floats


def target_rows(rows: ShardReader, data: RunData, most_users: int) -> TargetRows:
    """The two newest rows of each user with a test target: they predict its validation and its test item.

    At most `most_users` users, spread evenly.
    """
    users, positions, x = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros((0, rows.d), np.float32)]
    for shard in rows.shards():
        owner = np.maximum(shard.user, 0)
        newest_two = (shard.position >= data.histories.lengths[owner] - 2) & (data.targets[owner] > 0)
        kept = np.flatnonzero((shard.user >= 0) & newest_two)
        users.append(shard.user[kept].astype(np.int64))
        positions.append(shard.position[kept].astype(np.int64))
        x.append(shard.x[kept])
    owners = np.concatenate(users)
    chosen = np.unique(owners)
    if len(chosen) > most_users:
        chosen = chosen[np.linspace(0, len(chosen) - 1, most_users).astype(np.int64)]
    mask = np.isin(owners, chosen)
    return TargetRows(owners[mask], np.concatenate(positions)[mask], np.ascontiguousarray(np.concatenate(x)[mask]))


class TargetRanker:
    """Ranks the item that follows each row, from any activations of these rows; `check` is called between requests."""

    def __init__(
        self, source: ItemSource, model: SourceModel, data: RunData, rows: TargetRows, check: Callable[[], None]
    ) -> None:
        """The activations to come must be in the order of `rows`."""
        self._source, self._model, self._check = source, model, check
        histories = [data.histories.of(int(user)) for user in rows.users]
        pairs = list(zip(rows.users, rows.positions, histories, strict=True))
        following = [
            history[position + 1] if position + 1 < len(history) else data.targets[user]
            for user, position, history in pairs
        ]
        self._targets = data.item_ids(np.array(following, np.int32))
        self._exclude = [data.item_ids(history[: position + 1]) for _, position, history in pairs]

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
