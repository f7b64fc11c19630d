"""Real worker processes on a real server, and a recommender of the tests' own.

The recommender is a plug-in: a few lines of numpy behind the `ActivationExporter` contract.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from recsae.datasets.planted import make_planted
from recsae.datasets.schema import publish_dataset
from recsae.pipeline.celery_queue import CeleryTaskQueue
from recsae.pipeline.contracts import AdvanceRun
from recsae.pipeline.run_store import start_refresh
from recsae.pipeline.runs import Run, RunConfig
from recsae.pipeline.runs_redis import RedisRunStore
from recsae.pipeline.sweeps import SweepGrid
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.store.artifacts import ArtifactStore
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc

_WAIT_S = 120.0
DIM, MAX_HISTORY, N_ITEMS = 16, 20, 60
MODEL_VERSION = "feedfacefeedface"

# Name and labels of a metric -> its value.
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Plugin(recommender_pb2_grpc.ActivationExporterServicer, recommender_pb2_grpc.RecommenderServicer):
    """Activation = decayed sum of item vectors; score = dot product."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        genre = np.eye(8, DIM, dtype=np.float32)[np.arange(N_ITEMS) % 8]
        self.vectors = (genre + 0.2 * rng.normal(size=(N_ITEMS, DIM))).astype(np.float32)
        self.ids = [f"i{number}" for number in range(1, N_ITEMS + 1)]
        self.index = {item: number for number, item in enumerate(self.ids)}
        self.broken = ""
        self.exports = 0
        self.version = MODEL_VERSION

    def retrain(self) -> None:
        """Another version of the model: it knows the same, in a space that is turned."""
        turn = np.linalg.qr(np.random.default_rng(9).normal(size=(DIM, DIM)))[0]
        self.vectors = (self.vectors @ turn).astype(np.float32)
        self.version = "beadedbeadedbead"

    def GetModel(
        self, request: recommender_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.GetModelResponse:
        if self.broken:
            context.abort(grpc.StatusCode.INTERNAL, self.broken)
        hook = recommender_pb2.HookInfo(
            name="sequence", side=common_pb2.SIDE_USER, dim=DIM, steerable=True, all_positions=True
        )
        info = recommender_pb2.ModelInfo(
            name=request.model, version=self.version, family="plugin", hooks=[hook], max_history=MAX_HISTORY,
            item_count=N_ITEMS, head=recommender_pb2.HEAD_KIND_DOT_PRODUCT, max_export_rows=512,
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
            assert 0 < len(history.item_ids) <= MAX_HISTORY
            state = np.zeros(DIM, np.float32)
            for position, item in enumerate(history.item_ids, start=1):
                state = 0.7 * state + self.vectors[self.index[item]]
                if request.positions == recommender_pb2.POSITIONS_ALL or position == len(history.item_ids):
                    rows.append(state)
                    subjects.append(common_pb2.RowSubject(position=position, history_index=number))
        batch = common_pb2.ActivationBatch(
            model=request.model, model_version=self.version, hook="sequence", side=common_pb2.SIDE_USER,
            activations=to_tensor(np.stack(rows).astype(np.float32)), subjects=subjects,
        )  # fmt: skip
        return recommender_pb2.ExportActivationsResponse(batch=batch)

    def ExportItems(
        self, request: recommender_pb2.ExportItemsRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.ExportItemsResponse:
        return recommender_pb2.ExportItemsResponse(
            item_ids=self.ids, vectors=to_tensor(self.vectors), model_version=self.version
        )

    def Recommend(
        self, request: recommender_pb2.RecommendRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.RecommendResponse:
        raise NotImplementedError

    def Embed(
        self, request: recommender_pb2.EmbedRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.EmbedResponse:
        raise NotImplementedError

    def Rank(self, request: recommender_pb2.RankRequest, context: grpc.ServicerContext) -> recommender_pb2.RankResponse:
        scores = from_tensor(request.activations, name="activations") @ self.vectors.T
        lists = []
        for row, exclude in zip(scores, request.exclude, strict=True):
            out = {self.index[item] for item in exclude.item_ids}
            best = [int(at) for at in np.argsort(-row, kind="stable") if int(at) not in out][: request.k]
            items = [common_pb2.ScoredItem(item_id=self.ids[at], score=float(row[at])) for at in best]
            lists.append(recommender_pb2.RankedList(items=items))
        return recommender_pb2.RankResponse(lists=lists, model_version=self.version)


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
            *("--without-gossip", "--without-mingle"),
            *("-Q", "collect,train,concepts,drift", "-n", f"worker{len(self.processes)}@%h"),
        ]
        with (self.folder / f"worker-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=self.environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.processes.append(process)
        return process

    def environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "RECSAE_WORKER_STATE_URL": self.redis_url,
            "RECSAE_WORKER_BUS_URL": self.redis_url,
            "RECSAE_WORKER_ARTIFACTS": str(self.folder / "artifacts"),
            "RECSAE_WORKER_RECOMMENDER": self.recommender,
            "RECSAE_WORKER_LEASE_TTL_S": "2",
            "RECSAE_WORKER_SWEEP_EVERY_S": "1",
            "RECSAE_WORKER_CHECKPOINT_EVERY_S": "0.2",
            "RECSAE_WORKER_DRIFT_EVERY_S": "1",
            "RECSAE_WORKER_AUDIT_EVERY_S": "1",
            "RECSAE_WORKER_AUDIT_KEEP": "1000",
            "OMP_NUM_THREADS": "1",
        }

    def start_run(self, **config: int | bool | str | SweepGrid) -> Run:
        run = start_refresh(self.runs, RunConfig(model="plugin", dataset_version=self.dataset_version, **config))  # type: ignore[arg-type]
        self.queue.enqueue(AdvanceRun(run.id))
        return run

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Polls until the condition holds; fails with the workers' logs when it does not or a worker ended."""
        deadline = time.monotonic() + _WAIT_S
        while not condition():
            assert time.monotonic() < deadline, f"no {what} within {_WAIT_S} s\n{self.logs()}"
            assert self.processes[-1].poll() is None, f"the worker ended before {what}\n{self.logs()}"
            time.sleep(0.05)

    def wait_for_run(self, run: Run, until: Callable[[Run], bool], what: str) -> Run:
        """Polls the run record, which is the truth, until the condition holds."""

        def holds() -> bool:
            current = self.runs.get(run.id)
            assert until(current) or not current.state.ended, f"ended before {what}: {current.reason}\n{self.logs()}"
            return until(current)

        self.wait_for(holds, what)
        return self.runs.get(run.id)

    def logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("worker-*.log")))

    def trainers_of(self, run: Run) -> set[int]:
        """Process ids of the run's training subprocesses that are alive."""
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and is_alive(int(entry.name)):
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                if "recsae_worker.train_process" in words and run.id in words:
                    found.add(int(entry.name))
        return found

    def checkpoint(self, run: Run) -> Path:
        return self.folder / "artifacts" / "runs" / run.id / ".scratch" / "train" / "out" / "checkpoint.safetensors"


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    plugin = Plugin()
    server = grpc.server(ThreadPoolExecutor(4))
    recommender_pb2_grpc.add_ActivationExporterServicer_to_server(plugin, server)
    recommender_pb2_grpc.add_RecommenderServicer_to_server(plugin, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    planted = make_planted(seed=1, n_users=150, n_items=N_ITEMS, mean_length=30)
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


def is_alive(pid: int) -> bool:
    """True while the process exists and is no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


@pytest.fixture
def scrape(fleet: Fleet) -> Iterator[Callable[[], Samples]]:
    """Scrapes an exporter process; its log line tells the port it took."""
    environment = {**fleet.environment(), "RECSAE_WORKER_METRICS_PORT": "0", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "recsae_worker.exporter"], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    ready = next(line for line in process.stderr if "exporter_ready" in line)
    url = f"http://127.0.0.1:{json.loads(ready)['port']}/metrics"

    def now() -> Samples:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    yield now
    process.terminate()
    assert process.wait(10) == 0
    process.stderr.close()
