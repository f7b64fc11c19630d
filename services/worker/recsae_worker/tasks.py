"""Celery tasks: read the payload, call one use case. Everything they need is imported in the child that runs them."""

from __future__ import annotations

from typing import Any

from recsae.pipeline.contracts import (
    ADVANCE,
    ARCHIVE,
    COMPARE,
    STEP,
    SWEEP,
    AdvanceRun,
    ArchiveAudit,
    CompareDrift,
    RunStep,
    from_payload,
)
from recsae_worker.app import app, settings


@app.task(name=ADVANCE)
def advance_run(payload: dict[str, Any]) -> None:
    """Moves one run on."""
    from recsae.pipeline.advance import advance
    from recsae.pipeline.stages.table import shards_of
    from recsae_worker.composition import platform_of

    advance(platform_of(settings), from_payload(AdvanceRun, payload).run_id, shards_of)


@app.task(name=STEP, bind=True)
def run_one_step(task: Any, payload: dict[str, Any]) -> str:
    """Does one step of a run; its progress is the task's too."""
    from recsae.pipeline.stages.table import STAGES
    from recsae.pipeline.steps import run_step
    from recsae_worker.composition import platform_of
    from recsae_worker.task_progress import TaskProgress

    with TaskProgress(task) as progress:
        return run_step(platform_of(settings), from_payload(RunStep, payload), STAGES, progress)


@app.task(name=SWEEP)
def sweep_runs(payload: dict[str, Any]) -> None:
    """Moves every unfinished run on: what a crash left lying is picked up here."""
    from recsae.pipeline.advance import sweep
    from recsae_worker.composition import platform_of

    platform = platform_of(settings)
    sweep(platform, platform.runs.list(limit=500, active_only=True))


@app.task(name=COMPARE)
def compare_drift(payload: dict[str, Any]) -> None:
    """Compares live traffic with the reference and records what moved."""
    from recsae.drift.monitor import compare_models
    from recsae_worker.composition import drift_of

    compare_models(drift_of(settings), only=from_payload(CompareDrift, payload).model)


@app.task(name=ARCHIVE)
def archive_audit(payload: dict[str, Any]) -> None:
    """Archives audit events that need not stay in Redis."""
    import time

    from recsae_worker.composition import archiver_of

    from_payload(ArchiveAudit, payload)
    archiver_of(settings).run(time.time())
