"""Activations of a base model: what an SAE trains on, what it is scored on, and which item each scored row predicts.

Every position of every history without its test item, as the platform's collect stage exports it, plus one single-item
history per item. Rows go to shards on disk, so memory is bounded. Not here: the base model (`base_models`), scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.base_models import TrainedBase
from recsae.concepts.splits import UserPart, split_users
from recsae.datasets.schema import Histories
from recsae.datasets.windows import Window, cut
from recsae.recommenders.families.sasrec import Sasrec
from recsae.sae.shards import ActivationShard, ShardReader, item_probes, write_shard

_WINDOWS_AT_ONCE = 64
_SHARD_ROWS = 65_536

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Activations:
    """Folders of shards: rows of the SAE's users, of the users held out of its training, and of single items."""

    sae: Path
    held_out: Path
    items: Path

    def training(self) -> ShardReader:
        """What an SAE is trained on: its users' rows and the items."""
        return ShardReader.open_folders(self.sae, self.items)

    def scoring(self) -> ShardReader:
        """What FVU and dead latents are measured on: the other users' rows and the items."""
        return ShardReader.open_folders(self.held_out, self.items)


@dataclass(frozen=True)
class Targets:
    """The two newest rows of each held-out user, which predict its validation and its test item.

    x float32 [n, d]; user, item int64 [n], items counted from 1; row r has consumed the items
    `consumed[offsets[r]:offsets[r + 1]]`.
    """

    x: Floats
    user: Ints
    item: Ints
    offsets: Ints
    consumed: Ints

    def take(self, rows: Ints) -> Targets:
        """Some of the rows, in ascending order."""
        sizes = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
        consumed = self.consumed[np.repeat(self.offsets[rows], sizes) + within]
        return Targets(self.x[rows], self.user[rows], self.item[rows], offsets, consumed)


def export_activations(base: TrainedBase, cache: Path) -> Activations:
    """Writes the shards into `cache`, or finds them there. "Held out" is meant for the SAE: the base model saw all."""
    folder = cache / f"{base.record['name']}-{base.record['identity']}"
    activations = Activations(folder / "sae", folder / "held_out", folder / "items")
    done = folder / "done"
    if not done.is_file():
        facts = {"model": base.record["name"], "model_version": base.record["identity"], "hook": "sequence"}
        parts = split_users(base.dataset.users.ids)
        histories = base.split.before_test
        for target, users in (
            (activations.sae, np.flatnonzero(parts == UserPart.SAE)),
            (activations.held_out, np.flatnonzero(parts != UserPart.SAE)),
        ):
            for number, shard in enumerate(_shards(base.model, histories, users)):
                write_shard(target, f"{number:05}", shard, facts)
        items = np.arange(1, base.dataset.items.count + 1)
        single = Histories(np.arange(len(items) + 1), items.astype(np.int32), np.zeros(len(items)))
        x = np.concatenate([shard.x for shard in _shards(base.model, single, np.arange(len(items)))])
        write_shard(activations.items, "00000", item_probes(x, items.astype(np.int32)), facts)
        done.touch()
    return activations


def target_rows(base: TrainedBase, activations: Activations) -> Targets:
    """Rows to rank with, of every held-out user with a test item."""
    histories, tests = base.split.before_test, base.split.test
    x, users, positions = [], [], []
    for shard in ShardReader.open_folders(activations.held_out).shards():
        kept = (shard.position >= histories.lengths[shard.user] - 2) & (tests[shard.user] > 0)
        x.append(shard.x[kept])
        users.append(shard.user[kept].astype(np.int64))
        positions.append(shard.position[kept].astype(np.int64))
    user, position = np.concatenate(users), np.concatenate(positions)
    newest = position == histories.lengths[user] - 1
    following = np.minimum(histories.offsets[user] + position + 1, len(histories.items) - 1)
    item = np.where(newest, tests[user], histories.items[following]).astype(np.int64)
    seen = position + 1
    row = np.repeat(np.arange(len(user)), seen)
    within = np.arange(len(row)) - np.repeat(np.cumsum(seen) - seen, seen)
    consumed = histories.items[histories.offsets[user][row] + within].astype(np.int64)
    return Targets(np.concatenate(x), user, item, np.concatenate([[0], np.cumsum(seen)]), consumed)


def _shards(model: Sasrec, histories: Histories, users: Ints) -> Iterator[ActivationShard]:
    """Every interaction of `users` as one row, a user's rows together and oldest first."""
    pending: list[ActivationShard] = []
    for part in _batches(histories, users, model.shape.max_history):
        pending.append(_rows(model, histories, part))
        if sum(len(shard.x) for shard in pending) >= _SHARD_ROWS:
            yield _joined(pending)
            pending = []
    if pending:
        yield _joined(pending)


def _batches(histories: Histories, users: Ints, max_history: int) -> Iterator[list[tuple[int, Window]]]:
    batch: list[tuple[int, Window]] = []
    for user in users:
        batch += [(int(user), window) for window in cut(int(histories.lengths[user]), max_history)]
        if len(batch) >= _WINDOWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _rows(model: Sasrec, histories: Histories, windows: list[tuple[int, Window]]) -> ActivationShard:
    longest = max(window.end - window.begin for _, window in windows)
    padded = np.zeros((len(windows), longest), np.int64)
    for row, (user, window) in enumerate(windows):
        padded[row, : window.end - window.begin] = histories.of(user)[window.begin : window.end]
    with torch.no_grad():
        every = model(torch.from_numpy(padded)).numpy()
    kept = np.zeros(padded.shape, bool)
    for row, (_, window) in enumerate(windows):
        kept[row, window.keep - window.begin : window.end - window.begin] = True
    rows, columns = np.nonzero(kept)
    owner = np.array([user for user, _ in windows], np.int32)
    begin = np.array([window.begin for _, window in windows], np.int32)
    return ActivationShard(
        every[rows, columns],
        owner[rows],
        (begin[rows] + columns).astype(np.int32),
        padded[rows, columns].astype(np.int32),
    )


def _joined(shards: list[ActivationShard]) -> ActivationShard:
    columns = ("x", "user", "position", "item")
    return ActivationShard(**{name: np.concatenate([getattr(shard, name) for shard in shards]) for name in columns})
