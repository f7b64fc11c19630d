"""Several recommender processes on one port: they share the calls, outlive each other, and leave nobody behind."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator

import grpc
import pytest

from recsae.errors import FailedPreconditionError
from recsae.rpc.client import channel, service_config
from recsae.rpc.shared_port import SharedPort, strangers
from recsae.v1 import recommender_pb2, recommender_pb2_grpc

ASK = recommender_pb2.RecommendRequest(user_id="u-1", k=5)


class Parent:
    """`python -m recsae_recommender` with two processes, and its log."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recsae_recommender"],
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.children: list[int] = []
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def hear(self, event: str, **fields: object) -> dict[str, object]:
        """The next log line of that event with those fields; "" ends the wait for a process that ended."""
        while line := self._lines.get(timeout=60):
            said: dict[str, object] = json.loads(line)
            if said["event"] == "process_ready":
                self.children.append(int(str(said["pid"])))
            if said["event"] == event and fields.items() <= said.items():
                return said
        raise AssertionError(f"ended without {event}: {self.said}")

    def until_ended(self) -> int:
        """Its exit status, once it and all of its children have closed the log."""
        self._reader.join(60)
        assert not self._reader.is_alive(), self.said
        return self.process.wait(60)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as log:
            for line in log:
                self.said.append(line)
                self._lines.put(line)
        self._lines.put("")


@pytest.fixture
def start_two(environment: dict[str, str]) -> Iterator[Callable[..., Parent]]:
    started: list[Parent] = []

    def start(**values: str) -> Parent:
        mine = {f"RECSAE_RECOMMENDER_{name.upper()}": value for name, value in values.items()}
        started.append(Parent(environment | {"RECSAE_RECOMMENDER_PROCESSES": "2"} | mine))
        return started[-1]

    yield start
    for parent in started:
        for pid in (parent.process.pid, *parent.children):
            if parent.process.poll() is None or pid != parent.process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        parent.process.wait(60)


def connections(port: int, count: int) -> list[grpc.Channel]:
    """Channels with a connection each, where one program's channels would share one; retries as `channel` has them."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.service_config", service_config())]
    return [
        grpc.insecure_channel(f"127.0.0.1:{port}", [*options, ("grpc.initial_reconnect_backoff_ms", 100)])
        for _ in range(count)
    ]


def served(metrics_port: int) -> dict[str, float]:
    """Recommend calls answered so far, by process."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    calls = r'recsae_rpc_requests_total\{code="OK",method="/recsae.v1.Recommender/Recommend",process="(\d)"\} (\S+)'
    return {process: float(count) for process, count in re.findall(calls, text)}


def test_both_processes_serve_and_a_killed_one_is_replaced_without_a_lost_call(
    start_two: Callable[..., Parent],
) -> None:
    parent = start_two()
    metrics_port = int(str(parent.hear("metrics_started")["port"]))
    port = int(str(parent.hear("processes_ready")["port"]))
    channels = connections(port, 12)
    stubs = [recommender_pb2_grpc.RecommenderStub(one) for one in channels]
    for stub in stubs:
        stub.Recommend(ASK, timeout=10)
    assert served(metrics_port).keys() == {"0", "1"}
    assert sum(served(metrics_port).values()) == len(stubs)
    assert strangers(port, parent.children) == 0

    stop = threading.Event()

    def load(stub: recommender_pb2_grpc.RecommenderStub) -> int:
        answered = 0
        while not stop.is_set():
            assert len(stub.Recommend(ASK, timeout=10).items) == 5
            answered += 1
        return answered

    with concurrent.futures.ThreadPoolExecutor(len(stubs)) as pool:
        loads = [pool.submit(load, stub) for stub in stubs]
        victim = parent.children[0]
        os.kill(victim, signal.SIGKILL)
        parent.hear("process_ended", status=-signal.SIGKILL)
        parent.hear("process_ready")
        stop.set()
        assert all(one.result() > 0 for one in loads)
    assert len(parent.children) == 3
    assert victim not in (parent.children[1], parent.children[2])

    for one in channels:
        one.close()
    with pytest.raises(FailedPreconditionError, match=f"127.0.0.1:{port} cannot be bound"):
        SharedPort("127.0.0.1", port)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.until_ended() == 0
    drained = [json.loads(line) for line in parent.said if '"server_stopped"' in line]
    assert [one["calls_finished"] for one in drained] == [True, True]


def test_children_of_a_killed_parent_drain_and_end(start_two: Callable[..., Parent]) -> None:
    parent = start_two()
    port = int(str(parent.hear("processes_ready")["port"]))
    parent.process.kill()
    assert parent.until_ended() == -signal.SIGKILL  # the log ends when its last writer has
    assert len([line for line in parent.said if '"server_stopped"' in line]) == 2
    with channel(f"127.0.0.1:{port}") as opened, pytest.raises(grpc.RpcError):
        recommender_pb2_grpc.RecommenderStub(opened).Recommend(ASK, timeout=0.5)


def test_what_is_wrong_with_the_processes_is_said_once_and_ends_all(start_two: Callable[..., Parent]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        taken = start_two(port=str(port))
        assert taken.until_ended() == 1
    assert f"127.0.0.1:{port} cannot be bound" in "".join(taken.said)
    assert "set another port" in "".join(taken.said)
    unknown = start_two(models="tiny=0123456789abcdef")
    assert unknown.until_ended() == 1
    said = "".join(unknown.said)
    assert "no model of version" in said
    assert "before it served" in said
    assert "Traceback" not in said


def test_a_stranger_on_the_port_is_noticed() -> None:
    held = SharedPort("127.0.0.1", 0)
    with contextlib.closing(held), socket.socket() as other:
        assert strangers(held.port, []) == 0
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", held.port))
        other.listen()
        assert strangers(held.port, []) == 1
        assert strangers(held.port, [os.getpid()]) == 0
