"""Ranks of held-out users' targets and their lists, by the recommender itself: full ranking, history items left out.

Goes through the recommender's contract, so what it measures holds for the model that is served. Not here: quality from
ranks, agreement of lists and their intervals (`recsae.sae.fidelity`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.described import RankedRows
from recsae.concepts.features import build_features
from recsae.concepts.inputs import DictionaryInputs
from recsae.pipeline.lanes import Lane
from recsae.pipeline.sources import SUBJECT, Floats, ItemSource, SourceModel, Subject, Tensors
from recsae.pipeline.stages.material import load_run_data, open_shards, read_plan
from recsae.pipeline.stages.rankable import rankability
from recsae.pipeline.stages.run_data import Part, RunData
from recsae.pipeline.stages.target_lists import LIST_LENGTH, TargetLists
from recsae.pipeline.steps import StepContext
from recsae.sae.rankings import Rankings
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.shards import ShardReader

_ROWS_PER_CALL = 512
# The interval of NDCG@10 kept narrows with the root of the users: about +-.05 at 360, +-.015 at this many.
MOST_RANKED_USERS = 4_000


@dataclass(frozen=True)
class TargetRows:
    """Rows that predict an item the recommender was not trained on: user, position int64 [n]; x float32 [n, d].

    x is [n, interests * d] where a subject has several.
    """

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
    """What described NDCG ranks: the two newest rows of verification users.

    None when none of them has a target, nothing ranks from this hook, or a row is no vector of one subject: words give
    a latent one strength, and neither interests nor pairs can be made of that.
    """
    model = read_plan(context.workspace, lane).model
    if model.rows != SUBJECT or rankability(context, model).not_ranked:
        return None
    data = load_run_data(context, lane)
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
        """The activations to come must be in the order of `rows`: one per row, or all interests of each."""
        self._source, self._model, self._check = source, model, check
        asked = following_items(data, rows.users, rows.positions)
        self._exclude, self._lists = asked.consumed, TargetLists(asked.targets)
        self._passthrough = _passthrough(source, model, data, rows)

    @property
    def passthrough(self) -> tuple[str, ...]:
        """Names of the tensors that the head reads besides the activations; they are those of the original rows."""
        return tuple(self._passthrough)

    def __call__(self, x: Floats) -> Rankings:
        """Places of the targets and lists of `x` [n * interests, d]; see `TargetLists`."""
        parts: list[Rankings] = []
        for begin in range(0, len(self._exclude), _ROWS_PER_CALL):
            self._check()
            span = slice(begin, begin + _ROWS_PER_CALL)
            rows = slice(span.start * self._model.interests, span.stop * self._model.interests)
            tensors = {name: tensor[rows] for name, tensor in self._passthrough.items()}
            lists = self._source.rank(self._model, x[rows], LIST_LENGTH, self._exclude[span], passthrough=tensors)
            parts.append(self._lists.rankings(lists, span))
        return Rankings(np.concatenate([part.ranks for part in parts]), np.concatenate([part.items for part in parts]))


@dataclass(frozen=True)
class Following:
    """For n rows the item that follows each, and the items consumed before it, which are not to be listed."""

    targets: list[str]
    consumed: list[list[str]]


def following_items(data: RunData, users: NDArray[np.int64], positions: NDArray[np.int64]) -> Following:
    """What rows (user, position) predict: the next item, or the test item behind the end of the history."""
    histories = [data.histories.of(int(user)) for user in users]
    pairs = list(zip(users, positions, histories, strict=True))
    following = [
        history[position + 1] if position + 1 < len(history) else data.targets[user]
        for user, position, history in pairs
    ]
    consumed = [data.item_ids(history[: position + 1]) for _, position, history in pairs]
    return Following(data.item_ids(np.array(following, np.int32)), consumed)


def row_subjects(
    model: SourceModel, data: RunData, users: NDArray[np.int64], positions: NDArray[np.int64]
) -> list[Subject]:
    """Subjects of rows (user, position): the newest items up to there, as serving reads them."""
    pairs = zip(users.tolist(), positions.tolist(), strict=True)
    return [data.subject(u, data.histories.of(u)[max(0, at + 1 - model.max_history) : at + 1]) for u, at in pairs]


def _passthrough(source: ItemSource, model: SourceModel, data: RunData, rows: TargetRows) -> Tensors:
    """Tensors that cross the cut with the rows; nothing where the head is a dot product, or one row has none."""
    if model.dot_product or not len(rows.users):
        return {}
    subjects = row_subjects(model, data, rows.users, rows.positions)
    return source.crossing(model, subjects).passthrough if source.crossing(model, subjects[:1]).passthrough else {}
