"""Doing one step of a run: lease, attempt count, the work, its manifest, and what happens when it fails.

A step that cannot succeed would otherwise be delivered for ever, so attempts are counted in the run record before
the work begins: a worker that is killed by its step counts too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from recsae.errors import (
    CorruptArtifactError,
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
    RecsaeError,
)
from recsae.pipeline.advance import StepResult, forget_queued, manifest_name, step_name, write_manifest
from recsae.pipeline.contracts import AdvanceRun, RunStep
from recsae.pipeline.leases import Lease, StepStopped, hold
from recsae.pipeline.platform import Platform
from recsae.pipeline.run_store import update
from recsae.pipeline.runs import Run, RunState, Stage, ended
from recsae.pipeline.workspace import Workspace

MAX_ATTEMPTS = 3
_REPORT_EVERY_S = 1.0
_RETRY_DELAYS_S = (1.0, 5.0)
# Trying again cannot help: the request or the state is wrong, and the message says what to do.
_FINAL_ERRORS = (InvalidRequestError, FailedPreconditionError, NotFoundError, CorruptArtifactError)
_DIED = "its worker process died (killed, or out of memory)"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StepReport:
    """What a step says while it works; `progress` is that of its stage, 0 to 1, None when it does not know."""

    step: RunStep
    detail: str
    progress: float | None
    measures: Mapping[str, float]


def _nobody(report: StepReport) -> None: ...


@dataclass
class StepContext:
    """What a stage function gets. `listener` hears every report that is recorded; the record is the truth."""

    platform: Platform
    run: Run
    step: RunStep
    workspace: Workspace
    lease: Lease
    listener: Callable[[StepReport], None] = _nobody
    _reported_at: float = field(default=float("-inf"))

    def report(self, detail: str, progress: float | None = None, measures: Mapping[str, float] | None = None) -> None:
        """Tells people what is going on; written at most once a second. StepStopped when the step must end.

        `progress` is the done share of the stage, 0 to 1; a stage of several shards may leave it out. `measures` by
        name, in base units; those of the report before stay when they are left out.
        """
        self.lease.check()
        if time.monotonic() - self._reported_at < _REPORT_EVERY_S:
            return
        self._reported_at = time.monotonic()
        self.change_stage(
            lambda stage: replace(
                stage,
                detail=detail,
                progress=stage.progress if progress is None else progress,
                measures=stage.measures if measures is None else dict(measures),
            )
        )
        self.listener(StepReport(self.step, detail, progress, measures or {}))

    def change_stage(self, change: Callable[[Stage], Stage]) -> None:
        """Changes this step's stage in the record; nothing when the run has ended."""
        _change_stage(self.platform, self.step, change)


class StageFunction(Protocol):
    """The work of a stage."""

    def __call__(self, context: StepContext) -> StepResult:
        """Does one shard; raises StepStopped when told to stop."""


def run_step(
    platform: Platform,
    step: RunStep,
    stages: Mapping[str, StageFunction],
    listener: Callable[[StepReport], None] = _nobody,
) -> str:
    """Does a step unless it is done, held by another worker, or its run has ended; returns what happened.

    "done", "already_done", "held", "run_ended", "stopped", "failed" (it will be tried again) or "gave_up".
    """
    run = platform.runs.get(step.run_id)
    if run.state.ended:
        return "run_ended"
    workspace = platform.workspace(step.run_id)
    with hold(
        platform.leases,
        step_name(step),
        ended=lambda: platform.runs.get(step.run_id).state.ended,
        ttl_s=platform.lease_ttl_s,
    ) as lease:
        forget_queued(platform.leases, step)
        if lease is None:
            return "held"
        if workspace.exists(manifest_name(step.stage, step.shard)):
            outcome = "already_done"
        elif (begun := _begin(platform, step)).state.ended:
            return "gave_up"
        else:
            outcome = _attempt(StepContext(platform, begun, step, workspace, lease, listener), stages[step.stage])
    if outcome in ("done", "already_done"):
        platform.queue.enqueue(AdvanceRun(step.run_id))
    return outcome


def _attempt(context: StepContext, work: StageFunction) -> str:
    step = context.step
    try:
        result = work(context)
        context.lease.check()
        write_manifest(context.workspace, step, result)
    except StepStopped as stopped:
        _log.info("step_stopped", run_id=step.run_id, stage=step.stage, shard=step.shard, why=str(stopped))
        return "stopped"
    except Exception as error:
        _log.warning("step_failed", run_id=step.run_id, stage=step.stage, shard=step.shard, exc_info=error)
        return _record_failure(context, error)
    return "done"


def _begin(platform: Platform, step: RunStep) -> Run:
    """Counts an attempt; gives the run up when it was the last one already."""

    def change(run: Run) -> Run:
        if run.state.ended:
            return run
        stage = run.stage(step.stage)
        attempts = stage.attempts_by_shard.get(step.shard, 0)
        if attempts >= MAX_ATTEMPTS:
            return ended(run, RunState.FAILED, _gave_up(step, stage.error or _DIED), platform.clock())
        begun = replace(
            stage,
            state=RunState.RUNNING,
            error="",
            measures={},
            started_at=stage.started_at or platform.clock(),
            attempts_by_shard={**stage.attempts_by_shard, step.shard: attempts + 1},
        )
        return replace(run, state=RunState.RUNNING).with_stage(begun)

    return update(platform.runs, step.run_id, change, platform.clock)


def _record_failure(context: StepContext, error: Exception) -> str:
    step, platform = context.step, context.platform
    words = str(error) if isinstance(error, RecsaeError) else f"{type(error).__name__}: {error}"
    attempts = platform.runs.get(step.run_id).stage(step.stage).attempts_by_shard.get(step.shard, 0)
    if attempts >= MAX_ATTEMPTS or isinstance(error, _FINAL_ERRORS):
        reason = _gave_up(step, words) if attempts >= MAX_ATTEMPTS else f"{_place(step)} failed: {words}"
        update(
            platform.runs,
            step.run_id,
            lambda run: ended(run, RunState.FAILED, reason, platform.clock()),
            platform.clock,
        )
        return "gave_up"
    context.change_stage(lambda stage: replace(stage, error=words, detail=f"attempt {attempts} failed: {words}"))
    delay_s = _RETRY_DELAYS_S[min(attempts, len(_RETRY_DELAYS_S)) - 1]
    platform.queue.enqueue(AdvanceRun(step.run_id), delay_s)
    return "failed"


def _change_stage(platform: Platform, step: RunStep, change: Callable[[Stage], Stage]) -> None:
    update(
        platform.runs,
        step.run_id,
        lambda run: run if run.state.ended else run.with_stage(change(run.stage(step.stage))),
        platform.clock,
    )


def _gave_up(step: RunStep, words: str) -> str:
    return f"{_place(step)} was begun {MAX_ATTEMPTS} times without success; last: {words}"


def _place(step: RunStep) -> str:
    return step.stage if step.shard == "all" else f"{step.stage} ({step.shard})"
