"""Real worker processes on a real server: runs survive kills, end when cancelled and say why they failed.

The recommender is a plug-in of the test's own: a few lines of numpy behind the `ActivationExporter` contract.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
import redis

from recsae.datasets.planted import make_planted
from recsae.datasets.schema import publish_dataset
from recsae.pipeline.celery_queue import CeleryTaskQueue
from recsae.pipeline.contracts import AdvanceRun
from recsae.pipeline.run_store import cancel, start_refresh
from recsae.pipeline.runs import Run, RunConfig, RunState
from recsae.pipeline.runs_redis import RedisRunStore
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.store.artifacts import ArtifactStore
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc

_WAIT_S = 120.0
_DIM, _MAX_HISTORY, _N_ITEMS = 16, 20, 60
_VERSION = "feedfacefeedface"
_ROOT = Path(__file__).resolve().parents[2]


class Plugin(recommender_pb2_grpc.ActivationExporterServicer, recommender_pb2_grpc.RecommenderServicer):
    """Activation = decayed sum of item vectors; score = dot product."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        genre = np.eye(8, _DIM, dtype=np.float32)[np.arange(_N_ITEMS) % 8]
        self.vectors = (genre + 0.2 * rng.normal(size=(_N_ITEMS, _DIM))).astype(np.float32)
        self.ids = [f"i{number}" for number in range(1, _N_ITEMS + 1)]
        self.index = {item: number for number, item in enumerate(self.ids)}
        self.broken = ""
        self.exports = 0

    def GetModel(
        self, request: recommender_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.GetModelResponse:
        if self.broken:
            context.abort(grpc.StatusCode.INTERNAL, self.broken)
        hook = recommender_pb2.HookInfo(
            name="sequence", side=common_pb2.SIDE_USER, dim=_DIM, steerable=True, all_positions=True
        )
        info = recommender_pb2.ModelInfo(
            name=request.model, version=_VERSION, family="plugin", hooks=[hook], max_history=_MAX_HISTORY,
            item_count=_N_ITEMS, head=recommender_pb2.HEAD_KIND_DOT_PRODUCT, max_export_rows=512,
        )  # fmt: skip
        return recommender_pb2.GetModelResponse(model=info, available_models=[request.model])

    def ExportActivations(
        self, request: recommender_pb2.ExportActivationsRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.ExportActivationsResponse:
        self.exports += 1
        rows: list[np.ndarray] = []
        subjects: list[common_pb2.RowSubject] = []
        if request.WhichOneof("source") == "items":
            rows = list(self.vectors)
            subjects = [common_pb2.RowSubject(item_id=item, position=1) for item in self.ids]
        for number, history in enumerate(request.histories.histories):
            assert 0 < len(history.item_ids) <= _MAX_HISTORY
            state = np.zeros(_DIM, np.float32)
            for position, item in enumerate(history.item_ids, start=1):
                state = 0.7 * state + self.vectors[self.index[item]]
                if request.positions == recommender_pb2.POSITIONS_ALL or position == len(history.item_ids):
                    rows.append(state)
                    subjects.append(common_pb2.RowSubject(position=position, history_index=number))
        batch = common_pb2.ActivationBatch(
            model=request.model, model_version=_VERSION, hook="sequence", side=common_pb2.SIDE_USER,
            activations=to_tensor(np.stack(rows).astype(np.float32)), subjects=subjects,
        )  # fmt: skip
        return recommender_pb2.ExportActivationsResponse(batch=batch)

    def ExportItems(
        self, request: recommender_pb2.ExportItemsRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.ExportItemsResponse:
        return recommender_pb2.ExportItemsResponse(
            item_ids=self.ids, vectors=to_tensor(self.vectors), model_version=_VERSION
        )

    def Rank(self, request: recommender_pb2.RankRequest, context: grpc.ServicerContext) -> recommender_pb2.RankResponse:
        scores = from_tensor(request.activations, name="activations") @ self.vectors.T
        lists = []
        for row, exclude in zip(scores, request.exclude, strict=True):
            out = {self.index[item] for item in exclude.item_ids}
            best = [int(at) for at in np.argsort(-row, kind="stable") if int(at) not in out][: request.k]
            items = [common_pb2.ScoredItem(item_id=self.ids[at], score=float(row[at])) for at in best]
            lists.append(recommender_pb2.RankedList(items=items))
        return recommender_pb2.RankResponse(lists=lists, model_version=_VERSION)


@dataclass
class Fleet:
    """Workers, the store they share and what a caller needs to talk to them."""

    redis_url: str
    folder: Path
    recommender: str
    plugin: Plugin
    dataset_version: str
    runs: RedisRunStore
    queue: CeleryTaskQueue
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_worker(self) -> subprocess.Popen[bytes]:
        """A worker process with beat inside, leader of a process group of its own."""
        command = [
            *(sys.executable, "-m", "celery", "-A", "recsae_worker.app", "worker", "-c", "1", "-B"),
            *("-s", str(self.folder / f"beat-{len(self.processes)}"), "--without-gossip", "--without-mingle"),
            *("-Q", "collect,train,concepts,drift", "-n", f"worker{len(self.processes)}@%h"),
        ]
        log = (self.folder / f"worker-{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(
            command, env=self._environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.processes.append(process)
        return process

    def _environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "RECSAE_WORKER_STATE_URL": self.redis_url,
            "RECSAE_WORKER_BUS_URL": self.redis_url,
            "RECSAE_WORKER_ARTIFACTS": str(self.folder / "artifacts"),
            "RECSAE_WORKER_RECOMMENDER": self.recommender,
            "RECSAE_WORKER_LEASE_TTL_S": "2",
            "RECSAE_WORKER_SWEEP_EVERY_S": "1",
            "RECSAE_WORKER_CHECKPOINT_EVERY_S": "0.2",
            "OMP_NUM_THREADS": "1",
        }

    def start_run(self, **config: int | bool) -> Run:
        run = start_refresh(self.runs, RunConfig(model="plugin", dataset_version=self.dataset_version, **config))  # type: ignore[arg-type]
        self.queue.enqueue(AdvanceRun(run.id))
        return run

    def wait(self, run: Run, until: Callable[[Run], bool], what: str) -> Run:
        """Polls the run record, which is the truth, until the condition holds."""
        deadline = time.monotonic() + _WAIT_S
        while not until(current := self.runs.get(run.id)):
            assert not current.state.ended, f"the run ended before {what}: {current.reason}"
            assert time.monotonic() < deadline, f"no {what} within {_WAIT_S} s: {current}\n{self.logs()}"
            time.sleep(0.05)
        return current

    def logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("worker-*.log")))

    def checkpoint(self, run: Run) -> Path:
        return self.folder / "artifacts" / "runs" / run.id / ".scratch" / "train" / "out" / "checkpoint.safetensors"


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    plugin = Plugin()
    server = grpc.server(ThreadPoolExecutor(4))
    recommender_pb2_grpc.add_ActivationExporterServicer_to_server(plugin, server)  # type: ignore[no-untyped-call]
    recommender_pb2_grpc.add_RecommenderServicer_to_server(plugin, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    planted = make_planted(seed=1, n_users=150, n_items=_N_ITEMS, mean_length=30)
    version = publish_dataset(ArtifactStore(str(tmp_path / "artifacts")), planted.dataset, b"key")
    with redis.Redis.from_url(redis_url, socket_timeout=10.0) as client:
        queue = CeleryTaskQueue.connect(redis_url)
        running = Fleet(redis_url, tmp_path, f"127.0.0.1:{port}", plugin, version, RedisRunStore(client), queue)
        yield running
        for process in running.processes:
            kill_group(process)
        queue.close()
    server.stop(None)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def trainers() -> set[int]:
    """Process ids of training subprocesses that are alive."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                alive = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
            except OSError:
                continue
            if b"recsae_worker.train_process" in words and alive:
                found.add(int(entry.name))
    return found


def trainers_of(run: Run) -> set[int]:
    return {pid for pid in trainers() if run.id in Path(f"/proc/{pid}/cmdline").read_bytes().decode()}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.02)


def test_a_killed_worker_costs_neither_the_run_nor_the_training_done_so_far(fleet: Fleet) -> None:
    first = fleet.start_worker()
    run = fleet.start_run(width=64, k=4, epochs=150)
    wait_until(lambda: fleet.checkpoint(run).exists() and bool(trainers_of(run)), "checkpoint while training")
    trained = trainers_of(run)
    kill_group(first)
    wait_until(lambda: not (trained & trainers()), "end of the killed worker's subprocess")
    checkpoint = fleet.checkpoint(run).read_bytes()
    done_before = _step_of(checkpoint)
    assert done_before > 0

    fleet.start_worker()
    finished = fleet.wait(run, lambda r: r.stage("train").state is RunState.SUCCEEDED, "end of training")
    assert finished.stage("train").attempts == 2
    assert finished.stage("collect").attempts == 1
    log = fleet.wait(run, lambda r: r.state is RunState.SUCCEEDED, "end of the run")
    assert log.triple.model_version == _VERSION


def _step_of(checkpoint: bytes) -> int:
    import json

    import safetensors

    length = int.from_bytes(checkpoint[:8], "little")
    del safetensors
    header = json.loads(checkpoint[8 : 8 + length])
    return int(json.loads(header["__metadata__"]["training"])["step"])


def test_cancelling_a_run_ends_its_training_subprocess(fleet: Fleet) -> None:
    fleet.start_worker()
    run = fleet.start_run(width=256, k=4, epochs=1000)
    wait_until(lambda: bool(trainers_of(run)), "training subprocess")
    started = trainers_of(run)
    cancel(fleet.runs, run.id, "wrong data set")
    wait_until(lambda: not (started & trainers()), "end of the subprocess")
    ended = fleet.runs.get(run.id)
    assert (ended.state, ended.reason) == (RunState.CANCELLED, "wrong data set")
    assert ended.stage("train").state is RunState.CANCELLED


def test_a_step_that_always_fails_ends_the_run_with_a_reason_after_three_attempts(fleet: Fleet) -> None:
    fleet.plugin.broken = "the feature store is on fire"
    fleet.start_worker()
    run = fleet.start_run()
    wait_until(lambda: fleet.runs.get(run.id).state.ended, "end of the run")
    failed = fleet.runs.get(run.id)
    assert failed.state is RunState.FAILED
    assert failed.stage("collect").attempts == 3
    assert "was begun 3 times without success" in failed.reason
    assert "the feature store is on fire" in failed.reason


def test_advancing_many_times_does_every_step_once(fleet: Fleet) -> None:
    run = fleet.start_run(width=32, k=4, epochs=2)
    for _ in range(5):
        fleet.queue.enqueue(AdvanceRun(run.id))
    fleet.start_worker()
    fleet.start_worker()
    finished = fleet.wait(run, lambda r: r.state is RunState.SUCCEEDED, "end of the run")
    assert {stage.name: stage.attempts for stage in finished.stages} == {stage.name: 1 for stage in finished.stages}
    with redis.Redis.from_url(fleet.redis_url) as client:
        channels = client.keys("recsae:channels:plugin*")
    assert channels
