"""Activation rows of users out of a recommender, in each of the ways a hook can be read.

By position, where the hook exports every one; by prefixes sent as histories of their own, where it exports the last one
only: the same rows, at more cost; one per user, where the model knows users by their id alone. Not here: which users,
and what is done with the rows (`collect`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.windows import Window, cut
from recsae.errors import FailedPreconditionError
from recsae.pipeline.sources import ActivationSource, Floats, SourceModel, Subject
from recsae.pipeline.stages.run_data import RunData
from recsae.sae.shards import ActivationShard

_USERS_PER_CALL = 64
# Prefixes, or users without a history: little each.
_SUBJECTS_PER_CALL = 1_024


@dataclass(frozen=True)
class UserRows:
    """Rows of some users; `unknown_users` of them were left out, because the model does not know them."""

    shard: ActivationShard
    unknown_users: int = 0


def read_users(
    source: ActivationSource, model: SourceModel, users: Sequence[int], data: RunData, report: Callable[[int], None]
) -> UserRows:
    """All rows of `users`, by user, then position; `report` hears how many users are done.

    FailedPreconditionError when the model knows most of them by no id.
    """
    if model.row_per_user:
        return _one_row_each(source, model, np.asarray(users, np.int64), data, report)
    parts: list[ActivationShard] = []
    for begin in range(0, len(users), _USERS_PER_CALL):
        batch = users[begin : begin + _USERS_PER_CALL]
        parts.append(_of_histories(source, model, batch, data))
        report(begin + len(batch))
    columns = ("x", "user", "position", "item")
    return UserRows(ActivationShard(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns)))


def _of_histories(source: ActivationSource, model: SourceModel, users: Sequence[int], data: RunData) -> ActivationShard:
    windows = [(user, window) for user in users for window in cut(int(data.histories.lengths[user]), model.max_history)]
    kept = np.concatenate([np.arange(w.begin, w.end) >= w.keep for _, w in windows])
    position = np.concatenate([np.arange(w.begin, w.end) for _, w in windows])[kept].astype(np.int32)
    user = np.repeat([user for user, _ in windows], [w.end - w.begin for _, w in windows])[kept].astype(np.int32)
    item = data.histories.items[data.histories.offsets[user] + position].astype(np.int32)
    if model.all_positions:
        whole = [_subject(data, user, window.begin, window.end) for user, window in windows]
        x = source.every_position(model, whole)[kept]
    else:
        x = np.concatenate(list(_by_prefix(source, model, windows, data)))
    return ActivationShard(np.ascontiguousarray(x), user, position, item)


def _by_prefix(
    source: ActivationSource, model: SourceModel, windows: Sequence[tuple[int, Window]], data: RunData
) -> Iterator[Floats]:
    """Activations of the kept positions of windows; a window's prefix is what that position has read."""
    prefixes = (
        _subject(data, user, window.begin, end)
        for user, window in windows
        for end in range(max(window.begin, window.keep) + 1, window.end + 1)
    )
    while few := list(islice(prefixes, _SUBJECTS_PER_CALL)):
        yield source.last_position(model, few)


def _subject(data: RunData, user: int, begin: int, end: int) -> Subject:
    return data.subject(user, data.histories.of(user)[begin:end])


def _one_row_each(
    source: ActivationSource,
    model: SourceModel,
    users: NDArray[np.int64],
    data: RunData,
    report: Callable[[int], None],
) -> UserRows:
    people, items = users[users < data.first_item_subject], users[users >= data.first_item_subject]
    parts = [np.zeros((0, model.row_length), np.float32)]
    for begin in range(0, len(people), _SUBJECTS_PER_CALL):
        few = people[begin : begin + _SUBJECTS_PER_CALL].tolist()
        parts.append(source.last_position(model, [data.someone(user) for user in few]))
        report(begin + len(few))
    x = np.concatenate(parts)
    known = _known(x) if model.reads_user_id else np.ones(len(x), bool)
    rows = [x[known]]
    if len(items):
        rows.append(item_vectors(source, model, data)[items - data.first_item_subject])
        report(len(users))
    user = np.concatenate([people[known], items])
    position = data.histories.lengths[user] - 1
    item = data.histories.items[data.histories.offsets[user] + position]
    x = np.ascontiguousarray(np.concatenate(rows), np.float32)
    shard = ActivationShard(x, user.astype(np.int32), position.astype(np.int32), item.astype(np.int32))
    return UserRows(shard, int((~known).sum()))


def _known(x: Floats) -> NDArray[np.bool_]:
    """Rows no other row equals: a model has one answer for all users it does not know, and one each for the others.

    FailedPreconditionError when more than half of several rows are one and the same.
    """
    if not len(x):
        return np.ones(0, bool)
    bits = np.ascontiguousarray(x).view(np.dtype((np.void, x.dtype.itemsize * x.shape[1]))).ravel()
    _, group, count = np.unique(bits, return_inverse=True, return_counts=True)
    if count.max() > 1 and 2 * count.max() > len(x):
        raise FailedPreconditionError(
            f"the recommender gives {count.max():,} of {len(x):,} users one and the same activation, as it does for "
            "users it does not know; give it the pseudonym key of the data set, and the data set it was trained on"
        )
    known: NDArray[np.bool_] = count[group.ravel()] == 1
    return known


def item_vectors(source: ActivationSource, model: SourceModel, data: RunData) -> Floats:
    """Rows of all items of the data set, float32 [n_items, d], where items lie in the space of users.

    FailedPreconditionError when the recommender leaves some out.
    """
    number = {item_id: at for at, item_id in enumerate(data.dataset.items.ids)}
    x = np.full((len(number), model.row_length), np.nan, np.float32)
    for page in source.items(model):
        places = np.array([number.get(item_id, -1) for item_id in page.item_ids], np.int64)
        x[places[places >= 0]] = page.activations[places >= 0]
    if missing := int(np.isnan(x).any(axis=1).sum()):
        raise FailedPreconditionError(
            f"model {model.name} lists {missing} items without a vector; export the model again, with a vector of each"
        )
    return x
