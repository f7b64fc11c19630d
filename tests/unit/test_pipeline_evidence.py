"""Stage evidence: one step per collected shard; its sums are merged once, whatever died or was done twice."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.bare_source import BareSource

from recsae.concepts.evidence_files import save_sums
from recsae.concepts.evidence_reading import RowFacts, read_shard
from recsae.concepts.evidence_sums import EvidenceSums
from recsae.concepts.features import log_item_counts
from recsae.concepts.splits import UserPart, split_users
from recsae.datasets.planted import make_planted
from recsae.datasets.schema import publish_dataset
from recsae.errors import FailedPreconditionError
from recsae.pipeline.advance import StepResult, advance, manifest_name
from recsae.pipeline.contracts import AdvanceRun, InMemoryTaskQueue, RunStep
from recsae.pipeline.lanes import lane_of
from recsae.pipeline.leases import InMemoryLeaseStore, Lease
from recsae.pipeline.platform import Platform
from recsae.pipeline.run_store import InMemoryRunStore, start_refresh
from recsae.pipeline.runs import RunConfig
from recsae.pipeline.sources import ItemActivations, SourceModel, Subject
from recsae.pipeline.stages import collect as collecting
from recsae.pipeline.stages.evidence import evidence, has_evidence, merged_evidence
from recsae.pipeline.stages.material import CollectedShards, fetch_shard, load_run_data, read_plan
from recsae.pipeline.stages.run_data import Part
from recsae.pipeline.stages.table import shards_of
from recsae.pipeline.steps import StageFunction, StepContext, run_step
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.shards import ActivationShard, ShardReader
from recsae.sae.weights import SaeWeights
from recsae.store.artifacts import ArtifactStore
from recsae.store.channels import InMemoryChannelStore

_D, _WIDTH, _K = 8, 32, 3
PLANTED = make_planted(seed=2, n_users=120, n_items=40, mean_length=25)
_PARTS = (Part.SAE, Part.CONSTRUCTION, Part.ITEMS)


class Source(BareSource):
    """Rows are the sums of an item vector each and the one before."""

    def __init__(self, item_ids: Sequence[str]) -> None:
        self.ids = item_ids
        self.vectors = dict(zip(item_ids, np.random.default_rng(0).normal(size=(len(item_ids), _D)), strict=True))

    def describe(self, model: str) -> SourceModel:
        return SourceModel(model, "a" * 16, "sequence", _D, 50, len(self.ids), 512, True, True)

    def every_position(self, model: SourceModel, subjects: Sequence[Subject]) -> NDArray[np.float32]:
        rows = [
            self.vectors[item] + (self.vectors[subject.history[at - 1]] if at else 0)
            for subject in subjects
            for at, item in enumerate(subject.history)
        ]
        return np.array(rows, np.float32)

    def items(self, model: SourceModel) -> Iterator[ItemActivations]:
        yield ItemActivations(tuple(self.ids), np.array(list(self.vectors.values()), np.float32))

    def item_ids(self, model: SourceModel) -> tuple[str, ...]:
        return tuple(self.ids)


def train(context: StepContext) -> StepResult:
    """An SAE nobody trained."""
    rng = np.random.default_rng(1)
    w = rng.normal(size=(_WIDTH, _D))
    w = (w / np.linalg.norm(w, axis=1, keepdims=True)).astype(np.float32)
    weights = SaeWeights(w, np.zeros(_WIDTH, np.float32), w, np.zeros(_D, np.float32), np.zeros(_D, np.float32))
    with tempfile.TemporaryDirectory() as folder:
        export_sae(weights, _K, TrainingFacts(error_p99=0.5, mean_norm=1.0, scores={}, config={}), Path(folder))
        context.workspace.put_folder("train/sae", Path(folder))
    return StepResult({}, {})


def nothing(context: StepContext) -> StepResult:
    return StepResult({}, {})


STAGES: dict[str, StageFunction] = {
    "collect": collecting.collect,
    "train": train,
    "evidence": evidence,
} | dict.fromkeys(("evaluate", "describe", "verify", "causal", "publish"), nothing)


@pytest.fixture
def queue() -> InMemoryTaskQueue:
    return InMemoryTaskQueue()


@pytest.fixture
def platform(tmp_path: Path, queue: InMemoryTaskQueue, monkeypatch: pytest.MonkeyPatch) -> Platform:
    monkeypatch.setattr(collecting, "ROWS_PER_SHARD", 200)
    return Platform(
        runs=InMemoryRunStore(),
        leases=InMemoryLeaseStore(),
        queue=queue,
        artifacts=ArtifactStore(str(tmp_path)),
        artifact_root=str(tmp_path),
        source=Source(PLANTED.dataset.items.ids),
        channels=InMemoryChannelStore(),
    )


def finish(platform: Platform, queue: InMemoryTaskQueue, stages: dict[str, StageFunction] = STAGES) -> StepContext:
    """A run through all stages; a context to read its work with."""
    version = publish_dataset(platform.artifacts, PLANTED.dataset, b"key")
    run = start_refresh(platform.runs, RunConfig(model="m", dataset_version=version))
    advance(platform, run.id, shards_of)
    while queue.tasks:
        match queue.tasks.pop(0):
            case AdvanceRun():
                advance(platform, run.id, shards_of)
            case RunStep() as step:
                run_step(platform, step, stages)
    step = RunStep(run.id, "describe", "all")
    return StepContext(platform, platform.runs.get(run.id), step, platform.workspace(run.id), Lease())


def in_one_pass(context: StepContext, *parts: Part) -> EvidenceSums:
    """The sums of all rows of the parts as one shard."""
    lane = lane_of("evidence", context.run.config)
    data = load_run_data(context, lane)
    plan = read_plan(context.workspace, lane)
    files = [fetch_shard(context.workspace, lane, shard.name) for shard in plan.shards if shard.part in parts]
    shards = list(ShardReader.open_files(files).shards())
    whole = ActivationShard(
        *(np.concatenate([getattr(one, name) for one in shards]) for name in ("x", "user", "position", "item"))
    )
    users = np.append(split_users(data.dataset.users.ids), np.int8(UserPart.SAE))
    facts = RowFacts(users, data.histories, log_item_counts(data.histories, data.dataset.items.count))
    sae = SparseAutoencoder.load(context.workspace.fetch_folder("train/sae"), "v")
    return read_shard(whole, sae, facts)


def content(sums: EvidenceSums, folder: Path) -> dict[str, bytes]:
    save_sums(sums, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_merged_shards_are_the_bytes_of_one_pass_over_all_rows(
    platform: Platform, queue: InMemoryTaskQueue, tmp_path: Path
) -> None:
    context = finish(platform, queue)
    lane = lane_of("evidence", context.run.config)
    names = {shard.name for shard in read_plan(context.workspace, lane).shards}
    assert len(names) > 6
    assert {name.removesuffix(".json") for name in context.workspace.names("steps/evidence")} == names
    for parts in (_PARTS, (Part.VERIFICATION,)):
        merged = merged_evidence(context, lane, *parts)
        assert content(merged, tmp_path / "m") == content(in_one_pass(context, *parts), tmp_path / "w")


def test_a_worker_that_dies_over_its_files_loses_and_doubles_nothing(
    platform: Platform, queue: InMemoryTaskQueue, tmp_path: Path
) -> None:
    died: set[str] = set()

    def dies_first(context: StepContext) -> StepResult:
        """Of each shard once before its files, once after them and before the manifest."""
        shard = context.step.shard
        if shard not in died:
            died.add(shard)
            context.workspace.write(f"evidence/{shard}/sums.safetensors", b"half a fi")
            raise RuntimeError("killed while writing")
        result = evidence(context)
        if f"{shard} again" not in died:
            died.add(f"{shard} again")
            raise RuntimeError("killed before the manifest")
        return result

    context = finish(platform, queue, STAGES | {"evidence": dies_first})
    assert context.run.stage("evidence").attempts == 3
    lane = lane_of("evidence", context.run.config)
    merged = merged_evidence(context, lane, *_PARTS)
    assert content(merged, tmp_path / "m") == content(in_one_pass(context, *_PARTS), tmp_path / "w")


def test_describing_opens_no_file_of_a_verification_shard(platform: Platform, queue: InMemoryTaskQueue) -> None:
    context = finish(platform, queue)
    lane = lane_of("evidence", context.run.config)
    for shard in read_plan(context.workspace, lane).shards:
        if shard.part is Part.VERIFICATION:
            context.workspace.write(f"evidence/{shard.name}/sums.safetensors", b"closed")
    assert merged_evidence(context, lane, *_PARTS).rows[UserPart.VERIFICATION] == 0


def test_evidence_of_other_rows_than_were_collected_is_refused(platform: Platform, queue: InMemoryTaskQueue) -> None:
    context = finish(platform, queue)
    lane = lane_of("evidence", context.run.config)
    one = next(shard.name for shard in read_plan(context.workspace, lane).shards if shard.part is Part.SAE)
    manifest = context.workspace.read_json(manifest_name("collect", one))
    context.workspace.write_json(manifest_name("collect", one), manifest | {"facts": {"rows": 1}})
    with pytest.raises(FailedPreconditionError, match="were collected; start a new run"):
        merged_evidence(context, lane, Part.SAE)


def test_a_run_begun_before_this_stage_existed_reads_its_shards_itself(
    platform: Platform, queue: InMemoryTaskQueue
) -> None:
    context = finish(platform, queue)
    lane = lane_of("evidence", context.run.config)
    assert has_evidence(context, lane)
    old = replace(context.run, stages=tuple(stage for stage in context.run.stages if stage.name != "evidence"))
    assert not has_evidence(replace(context, run=old), lane)
    assert not has_evidence(context, lane_of("control_verify", context.run.config))
    shards = CollectedShards(context.workspace, lane, _PARTS)
    names = [shard.name for shard in read_plan(context.workspace, lane).shards if shard.part in _PARTS]
    mapped = ShardReader.open_files([fetch_shard(context.workspace, lane, name) for name in names]).mapped()
    assert len(shards) == len(mapped) > 3
    for one, other in zip(shards, mapped, strict=True):
        np.testing.assert_array_equal(one.x, other.x)
    assert [len(one.user) for one in shards[1:3]] == [len(one.user) for one in mapped[1:3]]
