"""What several stages read: the data set of the run, its parts, and the shards that were collected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.splits import UserPart, split_users
from recsae.datasets.schema import Dataset, Histories, load_dataset
from recsae.datasets.splits import leave_one_out
from recsae.pipeline.advance import read_facts
from recsae.pipeline.lanes import Lane
from recsae.pipeline.platform import Platform
from recsae.pipeline.runs import Run
from recsae.pipeline.sources import SourceModel
from recsae.pipeline.workspace import Workspace
from recsae.sae.shards import ActivationShard, MappedShard, ShardReader

PLAN = "plan"
ITEMS = "items"


class Part(StrEnum):
    """What the rows of a shard may be used for; `ITEMS` are single-item probes."""

    SAE = "sae"
    CONSTRUCTION = "construction"
    VERIFICATION = "verification"
    ITEMS = "items"


_USER_PARTS = {
    Part.SAE: UserPart.SAE,
    Part.CONSTRUCTION: UserPart.CONSTRUCTION,
    Part.VERIFICATION: UserPart.VERIFICATION,
}


@dataclass(frozen=True)
class RunData:
    """The data set as the run reads it: `histories` end before the leave-one-out test item, `targets` are those.

    `targets` int32 [n_users], 0 where a user has none.
    """

    dataset: Dataset
    histories: Histories
    targets: NDArray[np.int32]

    def users_of(self, part: Part) -> NDArray[np.int64]:
        """Users of a part who have a history, int64, ascending."""
        parts = split_users(self.dataset.users.ids)
        return np.flatnonzero((parts == _USER_PARTS[part]) & (self.histories.lengths > 0)).astype(np.int64)

    def item_ids(self, items: NDArray[np.int32]) -> list[str]:
        """The caller's ids of item indices."""
        return [self.dataset.items.ids[index - 1] for index in items.tolist()]


def load_run_data(platform: Platform, run: Run) -> RunData:
    """The run's data set, fetched and verified; NotFoundError when its version was never published."""
    dataset = load_dataset(platform.artifacts.fetch("dataset", run.config.dataset_version).folder)
    split = leave_one_out(dataset.histories)
    return RunData(dataset, split.test_inputs(), split.test)


@dataclass(frozen=True)
class Shard:
    """A shard of a part: users [begin, end) of the part's users as they are collected; both 0 for items."""

    name: str
    part: Part
    begin: int
    end: int


@dataclass(frozen=True)
class Plan:
    """What is collected, fixed once per run: the model at one version, and the shards."""

    model: SourceModel
    shards: tuple[Shard, ...]

    def shard(self, name: str) -> Shard:
        """The shard of that name."""
        return next(shard for shard in self.shards if shard.name == name)

    def facts(self) -> dict[str, Any]:
        """As JSON types."""
        return {"model": asdict(self.model), "shards": [asdict(shard) for shard in self.shards]}


def read_plan(workspace: Workspace, lane: Lane) -> Plan:
    """The plan of a lane; NotFoundError before it was made."""
    facts = read_facts(workspace, lane.stage("collect"), PLAN)
    shards = tuple(Shard(**{**shard, "part": Part(shard["part"])}) for shard in facts["shards"])
    return Plan(SourceModel(**facts["model"]), shards)


def shard_file(lane: Lane, name: str) -> str:
    """Where a shard lies in the work folder."""
    return f"{lane.stage('collect')}/{name}.safetensors"


def manifest_file(lane: Lane, name: str) -> str:
    """Where the manifest of a shard lies in the work folder."""
    return f"{lane.stage('collect')}/{name}.json"


def open_shards(workspace: Workspace, lane: Lane, *parts: Part) -> ShardReader:
    """The collected rows of some parts, through memory maps; InvalidRequestError when there are none."""
    names = [shard.name for shard in read_plan(workspace, lane).shards if shard.part in parts]
    return ShardReader.open_files([fetch_shard(workspace, lane, name) for name in names])


class CollectedShards(Sequence[MappedShard]):
    """The collected shards of some parts; each is opened when it is asked for, and nothing is kept."""

    def __init__(self, workspace: Workspace, lane: Lane, parts: Sequence[Part]) -> None:
        """Reads the plan only."""
        self._workspace, self._lane = workspace, lane
        self._names = [shard.name for shard in read_plan(workspace, lane).shards if shard.part in parts]

    def __len__(self) -> int:
        """Number of shards."""
        return len(self._names)

    @overload
    def __getitem__(self, at: int) -> MappedShard: ...

    @overload
    def __getitem__(self, at: slice) -> list[MappedShard]: ...

    def __getitem__(self, at: int | slice) -> MappedShard | list[MappedShard]:
        """One shard, or some."""
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        (shard,) = ShardReader.open_files([fetch_shard(self._workspace, self._lane, self._names[at])]).mapped()
        return shard


def fetch_shard(workspace: Workspace, lane: Lane, name: str) -> Path:
    """A local path of a shard, with its manifest beside it."""
    workspace.fetch(manifest_file(lane, name))
    return workspace.fetch(shard_file(lane, name))


def newest_rows(shard: ActivationShard, data: RunData) -> NDArray[np.int64]:
    """Rows of a shard, int64, that are the newest of their user: what serving would compute for it."""
    is_user = shard.user >= 0
    return np.flatnonzero(is_user & (shard.position == data.histories.lengths[shard.user] - 1))
