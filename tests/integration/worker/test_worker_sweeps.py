"""A sweep on real worker processes, and what training measures on its way to people: record, metrics, Celery."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from recsae.pipeline.advance import read_facts
from recsae.pipeline.contracts import STEP
from recsae.pipeline.run_store import cancel
from recsae.pipeline.runs import RunState
from recsae.pipeline.sweeps import SweepGrid
from recsae.pipeline.workspace import Workspace
from recsae_worker.app import build_app
from recsae_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from tests.integration.worker.conftest import Fleet, Samples

GRID = SweepGrid.of(widths=(32, 64), ks=(2, 4))
NAMES = ["w32-k2-topk-s0", "w32-k4-topk-s0", "w64-k2-topk-s0", "w64-k4-topk-s0"]
TRAINING = ("activations_per_second", "fvu", "l0", "dead_latents", "eta_seconds")


@pytest.fixture
def celery(fleet: Fleet) -> Iterator[Celery]:
    """Celery as any of its tools sees the platform."""
    app = build_app(WorkerSettings(bus_url=fleet.redis_url))
    yield app
    app.close()


def test_a_sweep_scores_every_point_and_trains_none_again_after_a_kill(fleet: Fleet) -> None:
    first = fleet.start_worker()
    run = fleet.start_run(epochs=1000, sweep=GRID)
    folder = fleet.folder / "artifacts" / "runs" / run.id
    second = folder / ".scratch" / "sweep" / NAMES[1] / "out" / "checkpoint.safetensors"
    fleet.wait_for(lambda: second.exists() and bool(fleet.trainers_of(run)), "checkpoint of the second point")
    assert [result.point.name for result in fleet.runs.get(run.id).points] == NAMES[:1]
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    fleet.start_worker()
    finished = fleet.wait_for_run(run, lambda r: r.state is RunState.SUCCEEDED, "end of the sweep")

    assert [stage.name for stage in finished.stages] == ["collect", "sweep", "report"]
    assert dict(finished.stage("sweep").attempts_by_shard) == dict(zip(NAMES, (1, 2, 1, 1), strict=True))
    assert [result.point.name for result in finished.points] == NAMES
    by_name = {result.point.name: result.scores for result in finished.points}
    for name, scores in by_name.items():
        assert 0 < scores["sae.fvu"] < 1, name
        assert scores["rank.ndcg@10_kept_low"] <= scores["rank.ndcg@10_kept"] <= scores["rank.ndcg@10_kept_high"], name
        assert {"sae.dead", "rank.ndcg@10_kept_adaptive_pca"} <= scores.keys(), name
    assert by_name["w64-k4-topk-s0"]["sae.fvu"] < by_name["w64-k2-topk-s0"]["sae.fvu"]
    assert by_name["w64-k2-topk-s0"]["sae.l0"] < by_name["w64-k4-topk-s0"]["sae.l0"]
    workspace = Workspace(str(fleet.folder / "artifacts"), run.id)
    assert [read_facts(workspace, "sweep", name)["resumed_from"] > 0 for name in NAMES] == [False, True, False, False]
    report = workspace.read_json("report/sweep.json")
    assert [point["name"] for point in report["points"]] == NAMES
    assert finished.triple.sae_version == ""  # a sweep publishes nothing


def test_a_point_that_cannot_be_trained_does_not_end_the_sweep(fleet: Fleet) -> None:
    fleet.start_worker()
    # The width is 4 x d = 64 by default, which is not known before the model is asked.
    run = fleet.start_run(epochs=5, sweep=SweepGrid.of(ks=(4, 300)))
    finished = fleet.wait_for_run(run, lambda r: r.state is RunState.SUCCEEDED, "end of the sweep")
    good, bad = finished.points
    assert (good.point.name, good.failure) == ("w64-k4-topk-s0", "")
    assert "k = 300 latents cannot be kept of width 64" in bad.failure
    assert finished.scores["sweep.failed"] == 1
    assert "1 could not be trained" in finished.stage("report").detail


def test_training_is_watched_in_the_record_the_metrics_and_celery_until_it_ends(
    fleet: Fleet, scrape: Callable[[], Samples], celery: Celery
) -> None:
    fleet.start_worker()
    run = fleet.start_run(width=65_536, k=4, epochs=1000)  # minutes of training
    running = fleet.wait_for_run(run, lambda r: bool(r.stage("train").measures), "measures of training")
    measures = running.stage("train").measures
    assert measures.keys() == {"activations_per_s", "fvu", "l0", "dead", "eta_s"}
    assert 0 < measures["l0"] <= 4
    assert measures["activations_per_s"] > 0
    assert measures["eta_s"] > 0
    labels = (("model", "plugin"), ("stage", "train"))
    samples = scrape()
    assert {name for name in TRAINING if (f"recsae_training_{name}", labels) in samples} == set(TRAINING)
    assert samples["recsae_training_activations_per_second", labels] > 0

    task_id = step_at_work(fleet, celery)
    fleet.wait_for(lambda: celery.AsyncResult(task_id).state == "PROGRESS", "Celery progress")
    meta = celery.AsyncResult(task_id).info
    assert (meta["run_id"], meta["stage"], meta["shard"]) == (run.id, "train", "all")
    assert measures.keys() <= meta.keys()
    assert 0 <= meta["progress"] <= 1

    cancel(fleet.runs, run.id, "seen enough")
    fleet.wait_for(lambda: not fleet.trainers_of(run), "end of the subprocess")
    assert not [name for name, _ in scrape() if name.startswith("recsae_training")]
    fleet.wait_for(lambda: celery.AsyncResult(task_id).state == "PENDING", "end of the progress")


def step_at_work(fleet: Fleet, celery: Celery) -> str:
    """Id of the one step task a worker is at, from Celery's own inspection."""
    found: list[str] = []

    def ask() -> bool:
        answers: dict[str, list[dict[str, Any]]] = celery.control.inspect(timeout=2).active() or {}
        found[:] = [task["id"] for tasks in answers.values() for task in tasks if task["name"] == STEP]
        return len(found) == 1

    fleet.wait_for(ask, "step task at work")
    return found[0]


def test_a_refresh_starts_from_the_sae_in_production_when_that_fits_and_says_so(fleet: Fleet) -> None:
    fleet.start_worker()
    cold = fleet.start_run(width=64, k=4, epochs=20, promote=True, warm_start=True)
    first = fleet.wait_for_run(cold, lambda r: r.state is RunState.SUCCEEDED, "end of the first run")
    assert first.stage("train").detail.endswith("cold start: model plugin has no SAE in production")
    assert first.scores["gates.passed"] == 1
    warm, wider = (fleet.start_run(width=width, k=4, epochs=20, warm_start=True) for width in (64, 128))
    words = {
        run.id: fleet.wait_for_run(run, lambda r: r.stage("train").state is RunState.SUCCEEDED, "SAE").stage("train")
        for run in (warm, wider)
    }
    version = first.triple.sae_version
    assert words[warm.id].detail.endswith(f"warm start from SAE {version}")
    assert words[wider.id].detail.endswith(f"cold start: SAE {version} in production is 64 x 16, this one 128 x 16")
    for run in (warm, wider):
        cancel(fleet.runs, run.id, "trained")
