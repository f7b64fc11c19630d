"""Ranks of held-out users' targets and their lists, by the recommender itself: full ranking, history items left out.

Goes through the recommender's contract, so what it measures holds for the model that is served. Not here: quality from
ranks, agreement of lists and their intervals (`recsae.sae.fidelity`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.described import RankedRows
from recsae.concepts.features import build_features
from recsae.concepts.inputs import DictionaryInputs
from recsae.pipeline.lanes import Lane
from recsae.pipeline.sources import Floats, ItemSource, RankedItems, SourceModel
from recsae.pipeline.stages.material import Part, RunData, load_run_data, open_shards, read_plan
from recsae.pipeline.steps import StepContext
from recsae.recommenders.metrics import ranks_in_lists
from recsae.sae.rankings import NO_ITEM, Rankings
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.shards import ShardReader

# One more than the largest cut-off, so that a tie at the cut-off is seen.
_LIST_LENGTH = 21
_ROWS_PER_CALL = 512
# The interval of NDCG@10 kept narrows with the root of the users: about +-.05 at 360, +-.015 at this many.
MOST_RANKED_USERS = 4_000


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


def ranked_rows(
    context: StepContext, lane: Lane, inputs: DictionaryInputs, sae: SparseAutoencoder
) -> RankedRows | None:
    """What described NDCG ranks: the two newest rows of verification users; None when none of them has a target."""
    data = load_run_data(context.platform, context.run)
    model = read_plan(context.workspace, lane).model
    rows = target_rows(open_shards(context.workspace, lane, Part.VERIFICATION), data, MOST_RANKED_USERS)
    if not len(rows.users):
        return None
    newest = data.histories.items[data.histories.offsets[rows.users] + rows.positions]
    places = _Places(rows.users.astype(np.int32), rows.positions.astype(np.int32), newest)
    features = build_features(inputs.windows(places), inputs.facets, inputs.log_counts)
    ranker = TargetRanker(context.platform.source, model, data, rows, context.lease.check)
    return RankedRows(sae, rows.x, rows.users, features, ranker)


@dataclass(frozen=True)
class _Places:
    """Where rows stand: user, position and newest item, int32 [n]."""

    user: NDArray[np.int32]
    position: NDArray[np.int32]
    item: NDArray[np.int32]


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
        self._exclude = [data.item_ids(history[: position + 1]) for _, position, history in pairs]
        # Numbers instead of ids; items that only the model knows get theirs when they are first listed.
        self._numbers: dict[str, int] = {}
        self._targets = self._numbered(data.item_ids(np.array(following, np.int32)))

    def __call__(self, x: Floats) -> Rankings:
        """Places of the targets, `NOWHERE` beyond the list of 21 (ties rank the target last), and the lists.

        Items are numbered alike in every call of this ranker.
        """
        parts: list[Rankings] = []
        for begin in range(0, len(x), _ROWS_PER_CALL):
            self._check()
            span = slice(begin, begin + _ROWS_PER_CALL)
            lists = self._source.rank(self._model, x[span], _LIST_LENGTH, self._exclude[span])
            items, scores = self._table(lists)
            parts.append(Rankings(ranks_in_lists(items, scores, self._targets[span]), items))
        return Rankings(np.concatenate([part.ranks for part in parts]), np.concatenate([part.items for part in parts]))

    def _table(self, lists: Sequence[RankedItems]) -> tuple[NDArray[np.int64], Floats]:
        """Item numbers int64 and scores float32, both [n, 21]; `NO_ITEM` and -inf behind the end of a list."""
        filled = np.arange(_LIST_LENGTH) < np.array([len(ranked.item_ids) for ranked in lists])[:, None]
        items = np.full(filled.shape, NO_ITEM, np.int64)
        scores = np.full(filled.shape, -np.inf, np.float32)
        items[filled] = self._numbered([item_id for ranked in lists for item_id in ranked.item_ids])
        scores[filled] = [score for ranked in lists for score in ranked.scores]
        return items, scores

    def _numbered(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        numbers = self._numbers
        return np.array([numbers.setdefault(item_id, len(numbers)) for item_id in item_ids], np.int64)
