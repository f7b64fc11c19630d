"""The recommender as its own process: what it loads, what it says, how it starts and stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from recsae.rpc.client import channel
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc

MARKERS = ("i-77", "marker-user-4711", "marker-item-0815", "marker-value-1337", "u-23")


class Process:
    """`python -m recsae_recommender` with its log lines."""

    def __init__(self, environment: dict[str, str], module: tuple[str, ...] = ("-m", "recsae_recommender")) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *module], env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, event: str, seconds: float = 60) -> dict[str, Any]:
        """The first log line with that event."""

        def found() -> dict[str, Any] | None:
            return next((one for one in map(json.loads, self.lines) if one["event"] == event), None)

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, seconds), self.lines
        line = found()
        assert line is not None
        return line

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and waits for the end; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(60)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()


@pytest.fixture
def run(environment: dict[str, str]) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(module: tuple[str, ...] = ("-m", "recsae_recommender"), **values: str) -> Process:
        mine = {f"RECSAE_RECOMMENDER_{name.upper()}": value for name, value in values.items()}
        started.append(Process(environment | mine, module))
        return started[-1]

    yield start
    for process in started:
        process.stop(signal.SIGKILL)


def test_serving_never_imports_torch(run: Callable[..., Process], tmp_path: Path) -> None:
    script = tmp_path / "probe.py"
    script.write_text(
        "import sys, threading\n"
        "from recsae.rpc.client import channel\n"
        "from recsae.v1 import recommender_pb2 as pb, recommender_pb2_grpc as stubs\n"
        "from recsae_recommender.app import RecommenderApp\n"
        "from recsae_recommender.settings import RecommenderSettings\n"
        "app = RecommenderApp(RecommenderSettings())\n"
        "app.start()\n"
        "with channel(f'127.0.0.1:{app.server.port}') as opened:\n"
        "    stubs.RecommenderStub(opened).Recommend(pb.RecommendRequest(user_id='u-1'))\n"
        "    pages = pb.ExportActivationsRequest(users=pb.UserPage(), positions=pb.POSITIONS_ALL)\n"
        "    stubs.ActivationExporterStub(opened).ExportActivations(pages)\n"
        "app.stop()\n"
        "heavy = {'torch', 'pyarrow', 'scipy', 'onnx', 'celery', 'numba'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    process = run(module=(str(script),))
    assert process.process.wait(60) == 0, process.lines


def test_no_log_line_and_no_metric_carries_user_ids_item_ids_or_histories(
    run: Callable[..., Process], start_interpreter: Any
) -> None:
    interpreter = start_interpreter()
    process = run(log_level="debug", interpreter=interpreter.address, metrics_port="0")
    ready = process.wait_for("server_ready")
    with channel(f"127.0.0.1:{ready['port']}") as opened:
        stub = recommender_pb2_grpc.RecommenderStub(opened)
        exporter = recommender_pb2_grpc.ActivationExporterStub(opened)
        marked = common_pb2.AttributeValue(text=MARKERS[3])
        calls: list[Callable[[], Any]] = [
            lambda: stub.Recommend(recommender_pb2.RecommendRequest(user_id="u-23"), timeout=10),
            lambda: stub.Recommend(
                recommender_pb2.RecommendRequest(
                    user_id=MARKERS[1],
                    history=common_pb2.History(item_ids=["i-77", MARKERS[2]]),
                    exclude_item_ids=[MARKERS[2]],
                    attributes={"surface": marked},
                ),
                timeout=10,
            ),
            lambda: stub.Recommend(recommender_pb2.RecommendRequest(user_id=MARKERS[1]), timeout=10),
            lambda: stub.Recommend(
                recommender_pb2.RecommendRequest(user_id="u-23", candidate_item_ids=[MARKERS[2]]), timeout=10
            ),
            lambda: exporter.Embed(recommender_pb2.EmbedRequest(user_id="u-23"), timeout=10),
            lambda: exporter.ExportActivations(
                recommender_pb2.ExportActivationsRequest(
                    histories=recommender_pb2.HistoryList(histories=[common_pb2.History(item_ids=[MARKERS[2]])])
                ),
                timeout=10,
            ),
        ]
        failed = 0
        for call in calls:
            try:
                call()
            except grpc.RpcError:
                failed += 1
        assert failed == 3
        interpreter.hear("observed")
    metrics = process.wait_for("metrics_started")
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics['port']}/metrics", timeout=10) as reply:
        exposed = reply.read().decode()
    assert process.stop() == 0
    assert 'recsae_recommend_total{model="tiny"' in exposed
    assert 'recsae_batch_invariant{model="tiny"} 1.0' in exposed
    assert len([line for line in process.lines if '"call_' in line]) >= len(calls)  # the debug lines are there
    said = exposed + "".join(process.lines)
    assert [marker for marker in MARKERS if marker in said] == []


def test_sigterm_drains_and_ends_with_status_0(run: Callable[..., Process]) -> None:
    process = run(drain_probe_s="0.5")
    port = process.wait_for("server_ready")["port"]
    with channel(f"127.0.0.1:{port}") as opened:
        watch = health_pb2_grpc.HealthStub(opened).Watch(
            health_pb2.HealthCheckRequest(service="recsae.v1.Recommender"), timeout=60
        )
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        process.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        stub = recommender_pb2_grpc.RecommenderStub(opened)
        reply = stub.Recommend(recommender_pb2.RecommendRequest(user_id="u-1"), timeout=10)
        assert len(reply.items) == 10
    assert process.process.wait(30) == 0


@pytest.mark.parametrize(
    ("values", "status", "says"),
    [
        ({"host": "0.0.0.0"}, 2, ("RECSAE_RECOMMENDER_TLS_CERT", "RECSAE_RECOMMENDER_TOKENS")),
        ({"models": ""}, 2, ("RECSAE_RECOMMENDER_MODELS", "name=version")),
        ({"models": "tiny=0123456789abcdef"}, 1, ("no model of version", "publish it first")),
        ({"history": "nonsense"}, 1, ("'nonsense' is no history store",)),
    ],
    ids=["public bind", "no model", "unknown version", "wrong store"],
)
def test_what_is_wrong_at_start_is_said_in_a_sentence(
    run: Callable[..., Process], values: dict[str, str], status: int, says: tuple[str, ...]
) -> None:
    process = run(**values)
    assert process.process.wait(60) == status
    process.stop()
    said = "".join(process.lines)
    assert all(part in said for part in says), said
    assert "Traceback" not in said


def test_other_name_than_the_bundles_is_refused(run: Callable[..., Process], models: dict[str, str]) -> None:
    process = run(models=f"other={models['tiny']}")
    assert process.process.wait(60) == 1
    process.stop()
    assert "is named 'tiny', not 'other'" in "".join(process.lines)
