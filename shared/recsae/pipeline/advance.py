"""`advance(run)`: reads the run record and the manifests of finished steps, and enqueues what is missing.

The record and the manifests are the truth; queues only carry hints. Calling it twice, late or from two workers at
once is harmless: a step that is waiting or at work is not enqueued again, and a step done twice ends in one manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from recsae.pipeline.contracts import AdvanceRun, RunStep
from recsae.pipeline.leases import LeaseStore
from recsae.pipeline.platform import Platform
from recsae.pipeline.run_store import update
from recsae.pipeline.runs import Run, RunState, Stage, ended
from recsae.pipeline.triples import Triple
from recsae.pipeline.workspace import Workspace

MANIFEST_SCHEMA = 1
# A message that got lost is sent again after this; one that only waits is then twice in the queue, and the second
# finds the step done.
_QUEUED_TTL_S = 60.0
# A sweep has hundreds of steps of minutes each: few wait at a time, enough to keep a fleet busy between two looks, and
# they are sent again late, so that the queue does not fill with repeated messages.
_SWEEP_QUEUED_TTL_S = 300.0
_SWEEP_WAITING = 4
_QUEUED = "queued"


@dataclass(frozen=True)
class StepResult:
    """What a finished step leaves: scores for the run record, facts for later stages, a sentence for people."""

    scores: Mapping[str, float]
    facts: Mapping[str, Any]
    detail: str = ""


class StageShards(Protocol):
    """Names the shards of each stage."""

    def __call__(self, run: Run, stage: str, workspace: Workspace) -> Sequence[str]:
        """Shards known so far; a plan shard may add more once it is done."""


def manifest_name(stage: str, shard: str) -> str:
    """Where the manifest of a step lies in the work folder."""
    return f"steps/{stage}/{shard}.json"


def write_manifest(workspace: Workspace, step: RunStep, result: StepResult) -> None:
    """Marks a step done: the last thing it writes."""
    workspace.write_json(
        manifest_name(step.stage, step.shard),
        {
            "schema_version": MANIFEST_SCHEMA,
            "scores": dict(result.scores),
            "facts": dict(result.facts),
            "detail": result.detail,
        },
    )


def read_facts(workspace: Workspace, stage: str, shard: str = "all") -> dict[str, Any]:
    """Facts of a finished step; NotFoundError when it is not done."""
    facts: dict[str, Any] = workspace.read_json(manifest_name(stage, shard))["facts"]
    return facts


def advance(platform: Platform, run_id: str, shards_of: StageShards) -> Run:
    """Moves a run on by one look; returns its record. An ended run stays as it is."""
    run = platform.runs.get(run_id)
    workspace = platform.workspace(run_id)
    for name in [stage.name for stage in run.stages]:
        if run.state.ended:
            return run
        if run.stage(name).state is RunState.SUCCEEDED:
            continue
        shards = shards_of(run, name, workspace)
        done = {entry.removesuffix(".json") for entry in workspace.names(f"steps/{name}")}
        missing = [shard for shard in shards if shard not in done]
        if missing:
            run = _record_progress(platform, run_id, name, 1 - len(missing) / len(shards))
            _enqueue(platform, run_id, name, missing)
            return run
        run = _record_finished(platform, run_id, name, [workspace.read_json(manifest_name(name, s)) for s in shards])
    workspace.clear_scratch()
    return update(
        platform.runs, run_id, lambda r: ended(r, RunState.SUCCEEDED, r.reason, platform.clock()), platform.clock
    )


def sweep(platform: Platform, active: Sequence[Run]) -> int:
    """Enqueues an `advance` of each run that has not ended; returns how many. What a crash left lying goes on so."""
    for run in active:
        platform.queue.enqueue(AdvanceRun(run.id))
    return len(active)


def step_name(step: RunStep) -> str:
    """Name of the step's lease."""
    return f"{step.run_id}/{step.stage}/{step.shard}"


def forget_queued(leases: LeaseStore, step: RunStep) -> None:
    """The step's message has arrived; should the step be missing again, it may be sent again."""
    leases.release(f"{_QUEUED}/{step_name(step)}", _QUEUED)


def _enqueue(platform: Platform, run_id: str, stage: str, shards: Sequence[str]) -> None:
    ttl_s, most = (_SWEEP_QUEUED_TTL_S, _SWEEP_WAITING) if stage == "sweep" else (_QUEUED_TTL_S, len(shards))
    waiting = 0
    for step in (RunStep(run_id, stage, shard) for shard in shards):
        if platform.leases.holder(step_name(step)):
            continue
        waiting += 1
        if platform.leases.acquire(f"{_QUEUED}/{step_name(step)}", _QUEUED, ttl_s):
            try:
                platform.queue.enqueue(step)
            except Exception:
                forget_queued(platform.leases, step)
                raise
        if waiting == most:
            break


def _record_progress(platform: Platform, run_id: str, name: str, share: float) -> Run:
    def change(run: Run) -> Run:
        if run.state.ended:
            return run
        stage = run.stage(name)
        started = run.state is RunState.RUNNING and stage.state is RunState.RUNNING
        if started and stage.progress >= share:
            return run
        at_work = replace(
            stage,
            state=RunState.RUNNING,
            progress=max(stage.progress, share),
            started_at=stage.started_at or platform.clock(),
        )
        return replace(run, state=RunState.RUNNING).with_stage(at_work)

    return update(platform.runs, run_id, change, platform.clock)


def _record_finished(platform: Platform, run_id: str, name: str, manifests: Sequence[Mapping[str, Any]]) -> Run:
    scores = {key: value for manifest in manifests for key, value in manifest["scores"].items()}
    triples = [manifest["facts"]["triple"] for manifest in manifests if "triple" in manifest["facts"]]
    details = [manifest["detail"] for manifest in manifests if manifest["detail"]]

    def change(run: Run) -> Run:
        stage = run.stage(name)
        if run.state.ended or stage.state is RunState.SUCCEEDED:
            return run
        now = platform.clock()
        finished = Stage(
            name,
            RunState.SUCCEEDED,
            progress=1.0,
            detail=details[-1] if details else "",
            started_at=stage.started_at or now,
            finished_at=now,
            attempts_by_shard=stage.attempts_by_shard,
            measures={key: value for key, value in stage.measures.items() if key != "eta_s"},
        )
        run = replace(run, state=RunState.RUNNING, scores={**run.scores, **scores}).with_stage(finished)
        return replace(run, triple=Triple(**triples[-1])) if triples else run

    return update(platform.runs, run_id, change, platform.clock)
