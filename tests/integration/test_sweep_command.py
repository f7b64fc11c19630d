"""`recsae sae sweep` against the real Pipeline service; a thread of the test plays the workers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.unit.toy_interpreter import ToyRecommender

from recsae.cli import app as cli
from recsae.cli.output import console, errors
from recsae.cli.run_bars import ENDED
from recsae.pipeline.contracts import AdvanceRun, InMemoryTaskQueue, Task
from recsae.pipeline.run_store import InMemoryRunStore, update
from recsae.pipeline.runs import Run, RunState, ended
from recsae.pipeline.sweeps import NDCG_KEPT, PointResult, SweepGrid
from recsae.recommenders.synthetic import tiny_bundle
from recsae.store.artifacts import ArtifactStore
from recsae.v1 import pipeline_pb2, pipeline_pb2_grpc
from recsae_interpreter.handlers.runs import RunsHandler
from recsae_interpreter.servicers import PipelineServicer

GRID = ("--width", "32,64", "--k", "2,4", "--seed", "0,1")


class Worked(InMemoryTaskQueue):
    """A queue whose tasks are done: the run ends as a test says."""

    def __init__(self, runs: InMemoryRunStore) -> None:
        super().__init__()
        self.runs, self.failing, self.idle = runs, False, False

    def enqueue(self, task: Task, delay_s: float = 0.0) -> None:
        super().enqueue(task, delay_s)
        assert isinstance(task, AdvanceRun)
        if not self.idle:
            threading.Thread(target=lambda: update(self.runs, task.run_id, self.finished)).start()

    def finished(self, run: Run) -> Run:
        assert run.config.sweep is not None
        points = run.config.sweep.points()
        results = tuple(PointResult(point, scores(point.width, point.k, point.seed)) for point in points)
        state, done = (RunState.FAILED, results[:1]) if self.failing else (RunState.SUCCEEDED, results)
        return ended(replace(run, points=done), state, "the disk is full" if self.failing else "", 1.0)


def scores(width: int, k: int, seed: int) -> dict[str, float]:
    kept = 0.9 + 0.01 * k + 0.0001 * width + 0.001 * seed
    return {"sae.l0": float(k), "sae.dead": 0.01, "sae.fvu": 1 / (k * width), NDCG_KEPT: kept}


@dataclass
class Platform:
    """The command in a workspace with a model and a data set, beside a service."""

    recsae: Callable[..., tuple[int, str, str]]
    runs: InMemoryRunStore
    queue: Worked
    stub: pipeline_pb2_grpc.PipelineStub


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Platform]:
    monkeypatch.setattr(console, "width", 160)
    monkeypatch.setattr(errors, "width", 160)
    monkeypatch.chdir(tmp_path)
    home, runs = tmp_path / "workspace", InMemoryRunStore()
    queue = Worked(runs)
    handler = RunsHandler(runs, queue, ArtifactStore(str(home / "artifacts")), ToyRecommender())
    server = grpc.server(ThreadPoolExecutor(2))
    unused: Any = None
    pipeline_pb2_grpc.add_PipelineServicer_to_server(PipelineServicer(handler, unused), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()

    def recsae(*arguments: str) -> tuple[int, str, str]:
        options = ("--home", str(home), "--recommender", address, "--interpreter", address)
        monkeypatch.setattr(sys, "argv", ["recsae", *options, *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code if isinstance(end.value.code, int) else 0, *capsys.readouterr())

    bundle = tiny_bundle(tmp_path / "bundle").folder
    assert recsae("data", "planted", "--users", "50", "--items", "24", "--concepts", "3", "--json")[0] == 0
    assert recsae("model", "import", str(bundle), "--data", "planted", "--json")[0] == 0
    with grpc.insecure_channel(address) as channel:
        yield Platform(recsae, runs, queue, pipeline_pb2_grpc.PipelineStub(channel))
    server.stop(None)


def test_a_sweep_is_followed_to_one_table_and_one_plot(platform: Platform, tmp_path: Path) -> None:
    code, out, err = platform.recsae("sae", "sweep", *GRID, "--plot", "sweep.svg")
    assert (code, err) == (0, "")
    (run,) = platform.runs.list()
    assert run.config.sweep == SweepGrid.of((32, 64), (2, 4), ("topk",), (0, 1))
    assert out.count("NDCG@10 kept") == 1
    assert out.count("mean") == 4
    assert "Plot: sweep.svg" in out
    assert "width 64" in (tmp_path / "sweep.svg").read_text()


def test_an_earlier_sweep_is_shown_again_and_plotted_under_its_own_name(platform: Platform, tmp_path: Path) -> None:
    platform.recsae("sae", "sweep", *GRID, "--json")
    (run,) = platform.runs.list()
    assert list(tmp_path.glob("*.svg")) == [], "--json alone draws nothing"
    code, out, _ = platform.recsae("sae", "sweep", "--run", run.id)
    assert code == 0
    assert f"8 points, run {run.id}" in out
    assert (tmp_path / f"{run.id}.svg").exists()


def test_a_sweep_that_failed_shows_the_points_it_has_and_why_it_ended(platform: Platform) -> None:
    platform.queue.failing = True
    code, out, err = platform.recsae("sae", "sweep", *GRID)
    assert code == 1
    assert "1 points" in out
    assert "failed: the disk is full" in err


def test_a_sweep_nobody_waits_for_says_how_to_see_it(platform: Platform) -> None:
    platform.queue.idle = True
    code, out, _ = platform.recsae("sae", "sweep", *GRID, "--no-wait")
    (run,) = platform.runs.list()
    assert code == 0
    assert f"`recsae sae sweep --run {run.id}` shows it later" in out.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--width", "8"), "width 8 is out of range"),
        (("--variant", "vanilla"), "variant 'vanilla' is unknown; choose from topk, batchtopk, matryoshka"),
        (("--k", "2,x"), "--k 'x' is no number"),
        (("--plot", "sweep.gif"), "ends in .svg, .png, .pdf"),
        (("--run", "r-0"), "no run 'r-0'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    platform: Platform, arguments: tuple[str, ...], words: str
) -> None:
    code, out, err = platform.recsae("sae", "sweep", *arguments)
    assert (code, out) == (1, "")
    assert words in err
    assert platform.runs.list() == []


def test_a_refresh_is_not_shown_as_a_sweep(platform: Platform) -> None:
    platform.queue.idle = True
    assert platform.recsae("refresh", "--variant", "matryoshka", "--warm-start", "--no-wait", "--json")[0] == 0
    (run,) = platform.runs.list()
    assert (run.config.variant, run.config.warm_start) == ("matryoshka", True)
    code, _, err = platform.recsae("sae", "sweep", "--run", run.id, "--no-wait")
    assert code == 1
    assert "is a refresh, not a sweep" in err


def test_points_come_with_one_run_and_stay_out_of_lists(platform: Platform) -> None:
    platform.recsae("sae", "sweep", *GRID, "--json")
    (listed,) = platform.stub.ListRuns(pipeline_pb2.ListRunsRequest()).runs
    whole = platform.stub.GetRun(pipeline_pb2.GetRunRequest(run_id=listed.id)).run
    assert listed.state in ENDED
    assert (len(listed.points), len(whole.points)) == (0, 8)
    assert whole.points[0].name == "w32-k2-topk-s0"
    assert whole.points[0].scores[NDCG_KEPT] == pytest.approx(scores(32, 2, 0)[NDCG_KEPT])
    assert (list(whole.sweep.widths), list(whole.sweep.ks), list(whole.sweep.seeds)) == ([32, 64], [2, 4], [0, 1])
