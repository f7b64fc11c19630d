"""What several stages read: the data set of the run, its parts, and the shards that were collected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.schema import load_dataset
from recsae.pipeline.advance import read_facts
from recsae.pipeline.lanes import Lane
from recsae.pipeline.sources import SourceModel
from recsae.pipeline.stages.run_data import Part, RunData
from recsae.pipeline.steps import StepContext
from recsae.pipeline.workspace import Workspace
from recsae.sae.shards import ActivationShard, MappedShard, ShardReader

PLAN = "plan"
ITEMS = "items"
# Not among the shards: a folder of those is read whole by some.
_UNKNOWN = "unknown/items.json"


def load_run_data(context: StepContext, lane: Lane) -> RunData:
    """The run's data set as a lane reads it.

    Without the items its model does not know; with items as subjects where its model has them beside its users.
    NotFoundError before the lane's plan is made, or when the data set was never published.
    """
    model = read_plan(context.workspace, lane).model
    return fitted(context, lane, whole_run_data(context), model)


def whole_run_data(context: StepContext) -> RunData:
    """The run's data set, fetched and verified; NotFoundError when its version was never published."""
    config = context.run.config
    return RunData.of(load_dataset(context.platform.artifacts.fetch("dataset", config.dataset_version).folder))


def fitted(context: StepContext, lane: Lane, data: RunData, model: SourceModel) -> RunData:
    """The data as a lane's model reads them."""
    known = data.without(unknown_items(context.workspace, lane))
    return known.with_items() if model.items_beside_users else known


def unknown_items(workspace: Workspace, lane: Lane) -> list[int]:
    """Indices of the data set's items that the lane's model does not know."""
    name = f"{lane.stage('collect')}/{_UNKNOWN}"
    return [int(index) for index in workspace.read_json(name)["items"]] if workspace.exists(name) else []


def write_unknown_items(workspace: Workspace, lane: Lane, unknown: Sequence[int]) -> None:
    """Fixes what is left out, for all stages of the lane."""
    workspace.write_json(f"{lane.stage('collect')}/{_UNKNOWN}", {"items": list(unknown)})


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
    model = facts["model"]
    return Plan(SourceModel(**{**model, "attributes": tuple(model.get("attributes", ()))}), shards)


def hook_config(model: SourceModel) -> dict[str, Any]:
    """What artifacts made from a hook say about it; its model is named by address."""
    return {
        "model": model.name,
        "hook": model.hook,
        "rows": model.rows,
        "interests": model.interests,
        "steerable": model.steerable,
    }


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
    """Rows of a shard, int64, that are the newest of their user: what serving would compute for it. Items are none."""
    is_user = (shard.user >= 0) & (shard.user < data.first_item_subject)
    return np.flatnonzero(is_user & (shard.position == data.histories.lengths[shard.user] - 1))
