"""Runs survive kills, end when cancelled and say why they failed: real worker processes on a real server."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from recsae.concepts.evidence_files import load_sums
from recsae.concepts.evidence_sums import EvidenceSums
from recsae.pipeline.advance import read_facts
from recsae.pipeline.contracts import AdvanceRun
from recsae.pipeline.run_store import cancel
from recsae.pipeline.runs import RunState
from recsae.pipeline.workspace import Workspace
from recsae.sae.shards import ShardReader
from recsae.store.channels_redis import RedisChannelStore
from recsae.store.redis import connect

if TYPE_CHECKING:
    from tests.integration.worker.conftest import Fleet


def step_of(checkpoint: Path) -> int:
    """The training step a checkpoint was saved at, from its header."""
    content = checkpoint.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return int(json.loads(header["__metadata__"]["training"])["step"])


def test_a_killed_worker_costs_neither_the_run_nor_the_training_done_so_far(fleet: Fleet) -> None:
    first = fleet.start_worker()
    run = fleet.start_run(width=64, k=4, epochs=1000)
    fleet.wait_for(lambda: fleet.checkpoint(run).exists() and bool(fleet.trainers_of(run)), "checkpoint")
    trained = fleet.trainers_of(run)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    fleet.start_worker()
    fleet.wait_for(lambda: not trained & fleet.trainers_of(run), "end of the killed worker's subprocess")
    saved = step_of(fleet.checkpoint(run))
    finished = fleet.wait_for_run(run, lambda r: r.state is RunState.SUCCEEDED, "end of the run")
    attempts = {stage.name: stage.attempts for stage in finished.stages}
    assert attempts == {stage.name: 2 if stage.name == "train" else 1 for stage in finished.stages}
    resumed_from = read_facts(Workspace(str(fleet.folder / "artifacts"), run.id), "train")["resumed_from"]
    assert resumed_from >= saved > 0


def test_a_worker_killed_among_the_shards_of_evidence_loses_and_doubles_no_row(fleet: Fleet) -> None:
    first = fleet.start_worker()
    run = fleet.start_run(width=64, k=4, epochs=2)
    work = Workspace(str(fleet.folder / "artifacts"), run.id)
    fleet.wait_for(lambda: bool(work.names("steps/evidence")), "first shard of evidence")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    fleet.start_worker()
    fleet.wait_for_run(run, lambda r: r.state is RunState.SUCCEEDED, "end of the run")
    collected = ShardReader.open_folders(fleet.folder / "artifacts" / "runs" / run.id / "collect")
    names = {name.removesuffix(".json") for name in work.names("steps/evidence")}
    assert names == {name.removesuffix(".json") for name in work.names("steps/collect")} - {"plan"}
    merged = EvidenceSums.merge(load_sums(work.fetch_folder(f"evidence/{name}")) for name in sorted(names))
    assert merged.rows.sum() == collected.n
    rows = {part: int(merged.rows[part]) for part in merged.samples}
    assert {part: sample.available for part, sample in merged.samples.items()} == rows
    for sample in merged.samples.values():
        pairs = set(zip(sample.user.tolist(), sample.position.tolist(), strict=True))
        assert len(pairs) == len(sample) > 100


def test_a_stopped_worker_gives_its_step_back_at_once_and_leaves_no_process(fleet: Fleet) -> None:
    first = fleet.start_worker()
    run = fleet.start_run(width=65_536, k=4, epochs=1000)  # minutes of training
    fleet.wait_for(lambda: fleet.checkpoint(run).exists() and bool(fleet.trainers_of(run)), "checkpoint")
    first.terminate()
    assert first.wait(30) is not None
    assert not fleet.trainers_of(run)
    assert not fleet.runs.get(run.id).state.ended


def test_cancelling_a_run_ends_its_training_subprocess(fleet: Fleet) -> None:
    fleet.start_worker()
    run = fleet.start_run(width=65_536, k=4, epochs=1000)  # minutes of training
    fleet.wait_for(lambda: bool(fleet.trainers_of(run)), "training subprocess")
    cancel(fleet.runs, run.id, "wrong data set")
    fleet.wait_for(lambda: not fleet.trainers_of(run), "end of the subprocess")
    ended = fleet.runs.get(run.id)
    assert (ended.state, ended.reason) == (RunState.CANCELLED, "wrong data set")
    assert ended.stage("train").state is RunState.CANCELLED


def test_a_step_that_always_fails_ends_the_run_with_a_reason_after_three_attempts(fleet: Fleet) -> None:
    fleet.plugin.broken = "the feature store is on fire"
    fleet.start_worker()
    run = fleet.start_run()
    fleet.wait_for(lambda: fleet.runs.get(run.id).state.ended, "end of the run")
    failed = fleet.runs.get(run.id)
    assert failed.state is RunState.FAILED
    assert failed.stage("collect").attempts == 3
    assert "was begun 3 times without success" in failed.reason
    assert "the feature store is on fire" in failed.reason


def test_two_workers_told_many_times_do_every_step_once_and_promote(fleet: Fleet) -> None:
    run = fleet.start_run(width=64, k=8, epochs=30, promote=True, control_model="untrained")
    for _ in range(5):
        fleet.queue.enqueue(AdvanceRun(run.id))
    fleet.start_worker()
    fleet.start_worker()
    finished = fleet.wait_for_run(run, lambda r: r.state is RunState.SUCCEEDED, "end of the run")
    assert {stage.name: stage.attempts for stage in finished.stages} == {stage.name: 1 for stage in finished.stages}
    channels = RedisChannelStore(connect(fleet.redis_url)).read("plugin").channels
    assert {name: channel.triple for name, channel in channels.items()} == {
        "candidate": finished.triple,
        "production": finished.triple,
    }, finished.stage("promote").detail
    wanted = {"sae.fvu", "sae.density_log10_-1.0", "rank.ndcg@10_kept", "rank.ndcg@10_kept_minus_adaptive_pca_low"}
    wanted |= {"rank.kendall@10", "concepts.verified", "control.concepts.verified"}
    assert wanted <= set(finished.scores)
    collected = ShardReader.open_folders(fleet.folder / "artifacts" / "runs" / run.id / "collect", verify=True)
    assert collected.facts == {
        "model": "plugin",
        "model_version": finished.triple.model_version,
        "hook": "sequence",
        "rows": "subject",
        "interests": "1",
        "steerable": "true",
        "dataset": fleet.dataset_version,
    }
