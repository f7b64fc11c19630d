"""Advance and steps: what is missing is enqueued once, failures are counted, cancelling ends the work."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.bare_source import BareSource

from recsae.errors import InvalidRequestError
from recsae.pipeline.advance import StepResult, advance, read_facts, sweep
from recsae.pipeline.contracts import AdvanceRun, InMemoryTaskQueue, RunStep
from recsae.pipeline.leases import InMemoryLeaseStore, StepStopped, hold
from recsae.pipeline.platform import Platform
from recsae.pipeline.run_store import InMemoryRunStore, cancel, start_refresh
from recsae.pipeline.runs import Run, RunConfig, RunState
from recsae.pipeline.steps import MAX_ATTEMPTS, StageFunction, StepContext, StepReport, run_step
from recsae.pipeline.sweeps import SweepGrid
from recsae.pipeline.workspace import Workspace
from recsae.store.artifacts import ArtifactStore
from recsae.store.channels import InMemoryChannelStore

CONFIG = RunConfig(model="sasrec", dataset_version="0123456789abcdef")


@pytest.fixture
def queue() -> InMemoryTaskQueue:
    return InMemoryTaskQueue()


@pytest.fixture
def platform(tmp_path: Path, queue: InMemoryTaskQueue) -> Platform:
    return Platform(
        runs=InMemoryRunStore(),
        leases=InMemoryLeaseStore(),
        queue=queue,
        artifacts=ArtifactStore(str(tmp_path)),
        artifact_root=str(tmp_path),
        source=BareSource(),
        channels=InMemoryChannelStore(),
    )


def shards(run: Run, stage: str, workspace: Workspace) -> Sequence[str]:
    if stage == "collect" and "plan.json" in workspace.names("steps/collect"):
        return ["plan", "a", "b"]
    return ["plan"] if stage == "collect" else ["all"]


def fine(context: StepContext) -> StepResult:
    return StepResult({f"{context.step.stage}.score": 1.0}, {"shard": context.step.shard}, "done well")


EVERY_STAGE: Mapping[str, StageFunction] = dict.fromkeys(
    ("collect", "train", "evaluate", "evidence", "describe", "verify", "causal", "publish"), fine
)


def drain(platform: Platform, queue: InMemoryTaskQueue, stages: Mapping[str, StageFunction]) -> list[str]:
    """Does every task until none is left; names the steps done in order."""
    done = []
    while queue.tasks:
        task = queue.tasks.pop(0)
        if isinstance(task, AdvanceRun):
            advance(platform, task.run_id, shards)
        elif isinstance(task, RunStep):
            run_step(platform, task, stages)
            done.append(f"{task.stage}/{task.shard}")
    return done


def test_a_run_goes_through_every_stage_in_order_and_gathers_scores(
    platform: Platform, queue: InMemoryTaskQueue
) -> None:
    run = start_refresh(platform.runs, CONFIG)
    advance(platform, run.id, shards)
    done = drain(platform, queue, EVERY_STAGE)
    assert done == [
        "collect/plan", "collect/a", "collect/b", "train/all",
        "evaluate/all", "evidence/all", "describe/all", "verify/all", "causal/all", "publish/all",
    ]  # fmt: skip
    finished = platform.runs.get(run.id)
    assert finished.state is RunState.SUCCEEDED
    assert finished.scores["train.score"] == 1.0
    assert all(stage.progress == 1.0 and stage.attempts == 1 for stage in finished.stages)
    assert read_facts(platform.workspace(run.id), "collect", "b") == {"shard": "b"}


def test_advancing_twice_enqueues_a_step_once(platform: Platform, queue: InMemoryTaskQueue) -> None:
    run = start_refresh(platform.runs, CONFIG)
    advance(platform, run.id, shards)
    advance(platform, run.id, shards)
    assert queue.tasks == [RunStep(run.id, "collect", "plan")]


def test_a_step_at_work_is_not_enqueued_again(platform: Platform, queue: InMemoryTaskQueue) -> None:
    run = start_refresh(platform.runs, CONFIG)

    def looks_around(context: StepContext) -> StepResult:
        before = len(queue.tasks)
        advance(platform, run.id, shards)
        assert len(queue.tasks) == before
        return fine(context)

    run_step(platform, RunStep(run.id, "collect", "plan"), {"collect": looks_around})


def test_a_step_done_twice_is_done_once(platform: Platform) -> None:
    run = start_refresh(platform.runs, CONFIG)
    step = RunStep(run.id, "collect", "plan")
    assert [run_step(platform, step, EVERY_STAGE) for _ in range(2)] == ["done", "already_done"]
    assert platform.runs.get(run.id).stage("collect").attempts == 1


def test_two_workers_never_do_one_step_at_once(platform: Platform) -> None:
    run = start_refresh(platform.runs, CONFIG)
    step = RunStep(run.id, "collect", "plan")
    outcomes: list[str] = []

    def meets_another(context: StepContext) -> StepResult:
        outcomes.append(run_step(platform, step, EVERY_STAGE))
        return fine(context)

    outcomes.append(run_step(platform, step, {"collect": meets_another}))
    assert outcomes == ["held", "done"]


def test_a_poison_step_is_tried_three_times_and_says_why(platform: Platform, queue: InMemoryTaskQueue) -> None:
    def poison(context: StepContext) -> StepResult:
        raise RuntimeError("the disk is full")

    run = start_refresh(platform.runs, CONFIG)
    advance(platform, run.id, shards)
    done = drain(platform, queue, {**EVERY_STAGE, "train": poison})
    failed = platform.runs.get(run.id)
    assert done.count("train/all") == MAX_ATTEMPTS
    assert failed.state is RunState.FAILED
    assert failed.reason == "train was begun 3 times without success; last: RuntimeError: the disk is full"
    assert failed.stage("train").state is RunState.FAILED
    assert failed.stage("evaluate").state is RunState.QUEUED


def test_a_step_that_kills_its_worker_is_given_up_after_three_attempts(platform: Platform) -> None:
    class Killed(BaseException):
        """What the next worker sees of a kill: nothing was recorded after the beginning."""

    def kills(context: StepContext) -> StepResult:
        raise Killed

    run = start_refresh(platform.runs, CONFIG)
    step = RunStep(run.id, "collect", "plan")
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(Killed):
            run_step(platform, step, {"collect": kills})
    assert run_step(platform, step, {"collect": kills}) == "gave_up"
    assert "its worker process died" in platform.runs.get(run.id).reason


def test_an_error_that_cannot_go_away_is_not_tried_again(platform: Platform) -> None:
    def wrong(context: StepContext) -> StepResult:
        raise InvalidRequestError("k 70 is larger than width 64; choose k <= width")

    run = start_refresh(platform.runs, CONFIG)
    assert run_step(platform, RunStep(run.id, "collect", "plan"), {"collect": wrong}) == "gave_up"
    assert platform.runs.get(run.id).reason == "collect (plan) failed: k 70 is larger than width 64; choose k <= width"


def test_a_step_that_failed_once_goes_on_and_the_run_succeeds(platform: Platform, queue: InMemoryTaskQueue) -> None:
    seen = []

    def fails_once(context: StepContext) -> StepResult:
        seen.append(1)
        if len(seen) == 1:
            raise ConnectionError("reset")
        return fine(context)

    run = start_refresh(platform.runs, CONFIG)
    advance(platform, run.id, shards)
    drain(platform, queue, {**EVERY_STAGE, "verify": fails_once})
    finished = platform.runs.get(run.id)
    assert finished.state is RunState.SUCCEEDED
    assert finished.stage("verify").attempts == 2
    assert finished.stage("verify").error == ""


def test_cancelling_stops_a_step_at_work_and_its_result_is_dropped(platform: Platform) -> None:
    run = start_refresh(platform.runs, CONFIG)

    def waits(context: StepContext) -> StepResult:
        cancel(platform.runs, run.id, "wrong data set")
        assert context.lease.stopped.wait(10)
        context.lease.check()
        return fine(context)

    step = RunStep(run.id, "collect", "plan")
    assert run_step(platform, step, {"collect": waits}) == "stopped"
    assert not platform.workspace(run.id).exists("steps/collect/plan.json")
    assert platform.runs.get(run.id).reason == "wrong data set"
    assert run_step(platform, step, EVERY_STAGE) == "run_ended"


def test_a_cancelled_run_is_not_advanced(platform: Platform, queue: InMemoryTaskQueue) -> None:
    run = start_refresh(platform.runs, CONFIG)
    cancel(platform.runs, run.id, "no")
    advance(platform, run.id, shards)
    assert queue.tasks == []


def test_reports_reach_the_record_and_the_listener_and_stay_when_the_stage_is_done(
    platform: Platform, queue: InMemoryTaskQueue
) -> None:
    heard: list[StepReport] = []

    def trains(context: StepContext) -> StepResult:
        context.report("step 1 of 2", 0.5, {"fvu": 0.25, "eta_s": 9.0})
        stage = platform.runs.get(run.id).stage("collect")
        assert (stage.detail, stage.progress, dict(stage.measures)) == ("step 1 of 2", 0.5, {"fvu": 0.25, "eta_s": 9.0})
        context.report("too soon", 0.6, {"fvu": 0.2})
        return fine(context)

    run = start_refresh(platform.runs, CONFIG)
    step = RunStep(run.id, "collect", "plan")
    assert run_step(platform, step, {"collect": trains}, heard.append) == "done"
    assert heard == [StepReport(step, "step 1 of 2", 0.5, {"fvu": 0.25, "eta_s": 9.0})]
    advance(platform, run.id, lambda *_: ["plan"])
    finished = platform.runs.get(run.id).stage("collect")
    assert (finished.state, dict(finished.measures)) == (RunState.SUCCEEDED, {"fvu": 0.25})


def test_few_points_of_a_sweep_wait_at_a_time_and_more_follow_as_they_are_taken_up(
    platform: Platform, queue: InMemoryTaskQueue
) -> None:
    config = replace(CONFIG, sweep=SweepGrid.of(widths=range(16, 36), ks=(1,)))
    run = start_refresh(platform.runs, config)
    steps = {"collect": fine, "sweep": fine, "report": fine}

    def points(run: Run, stage: str, workspace: Workspace) -> Sequence[str]:
        return [point.name for point in config.sweep.points()] if stage == "sweep" and config.sweep else ["all"]

    run_step(platform, RunStep(run.id, "collect", "all"), steps)
    queue.tasks.clear()
    for _ in range(3):
        advance(platform, run.id, points)
    waiting = [task for task in queue.tasks if isinstance(task, RunStep)]
    assert len(waiting) == len(set(waiting)) < 10
    while queue.tasks:
        task = queue.tasks.pop(0)
        if isinstance(task, RunStep):
            run_step(platform, task, steps)
        elif isinstance(task, AdvanceRun):
            advance(platform, run.id, points)
    finished = platform.runs.get(run.id)
    assert finished.state is RunState.SUCCEEDED
    assert set(finished.stage("sweep").attempts_by_shard.values()) == {1}
    assert len(finished.stage("sweep").attempts_by_shard) == 20


def test_the_sweep_advances_every_active_run(platform: Platform, queue: InMemoryTaskQueue) -> None:
    runs = [start_refresh(platform.runs, CONFIG) for _ in range(2)]
    assert sweep(platform, platform.runs.list(active_only=True)) == 2
    assert {task.run_id for task in queue.tasks if isinstance(task, AdvanceRun)} == {run.id for run in runs}


def test_a_lost_lease_stops_the_step() -> None:
    store = InMemoryLeaseStore()
    with hold(store, "x", ended=lambda: False, ttl_s=5, beat_s=0.01) as lease:
        assert lease is not None
        store.release("x", store.holder("x"))
        assert store.acquire("x", "somebody else", 5)
        assert lease.stopped.wait(5)
        with pytest.raises(StepStopped, match="lost to another worker"):
            lease.check()
    assert store.holder("x") == "somebody else"


def test_a_lease_survives_a_store_that_fails_for_a_moment() -> None:
    renewed = threading.Event()

    class Failing(InMemoryLeaseStore):
        failures = 3

        def renew(self, name: str, owner: str, ttl_s: float) -> bool:
            if self.failures:
                self.failures -= 1
                raise ConnectionError
            renewed.set()
            return super().renew(name, owner, ttl_s)

    with hold(Failing(), "x", ended=lambda: False, ttl_s=5, beat_s=0.01) as lease:
        assert lease is not None
        assert renewed.wait(5)
        lease.check()


def test_a_lease_that_cannot_be_renewed_counts_as_lost_before_another_worker_may_take_it() -> None:
    class Down(InMemoryLeaseStore):
        def renew(self, name: str, owner: str, ttl_s: float) -> bool:
            raise ConnectionError

    with hold(Down(), "x", ended=lambda: False, ttl_s=0.2, beat_s=0.01) as lease:
        assert lease is not None
        assert lease.stopped.wait(5)
        assert "does not answer" in lease.reason
