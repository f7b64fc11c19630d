"""The processes of one catalogue size: started together, loaded in turn, ended together.

All servers sit on one core and all load on another; only one server is loaded at a time.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from benchmarks.serving.plans import Sent
from benchmarks.serving.processes import Served, cores, free_port
from benchmarks.serving.world import MODEL, USERS, World
from recsae.rpc.grpc_engine import engine_environment
from recsae.v1 import recommender_pb2, recommender_pb2_grpc

_CALL_S = 60.0


class Crew:
    """Starts servers for a world; a context manager that ends them."""

    def __init__(self, world: World, environment: Mapping[str, str] | None = None) -> None:
        self.world = world
        self.server_core, self.load_core = cores()
        self.servers: dict[str, Served] = {}
        self._environment = dict(environment or {})
        self._starting: list[Served] = []
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def recommender(
        self,
        name: str,
        *,
        sent: Sent | None = None,
        module: str = "recsae_recommender",
        checkout: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Served:
        """A recommender called `name`; `sent` is what its interpreter serves, None = it has no interpreter."""
        port, metrics_port = free_port(), free_port()
        values = {
            "PORT": port,
            "METRICS_PORT": metrics_port,
            "ARTIFACTS": self.world.artifacts,
            "MODELS": f"{MODEL}={self.world.version}",
            "HISTORY": f"file:{self.world.histories}",
            "INTERPRETER": f"127.0.0.1:{self._interpreter(name, sent).port}" if sent is not None else "",
            "OBSERVE_SAMPLE": 0,
            "DRAIN_PROBE_S": 0,
            "DRAIN_GRACE_S": 1,
        } | dict(settings or {})
        environment = {f"RECSAE_RECOMMENDER_{key}": str(value) for key, value in values.items()}
        # As the recommender sets it for itself; the bare one has a `__main__` of its own.
        environment |= engine_environment()
        if checkout is not None:
            parts = ("shared", "services/recommender", "services/interpreter", "services/worker")
            environment["PYTHONPATH"] = ":".join(str(checkout / part) for part in parts)
        return self._serve(name, ["-m", module], port, metrics_port, environment, checkout)

    def echo(self, threads: int, response: bytes, name: str = "echo") -> Served:
        """An echo server that answers `response`."""
        file, port = self._folder / "response", free_port()
        file.write_bytes(response)
        return self._serve(name, ["-m", "benchmarks.serving.echo", str(port), str(threads), str(file)], port)

    def direct(self, name: str = "ort") -> Served:
        """The graphs alone on onnxruntime; see `run_direct`."""
        port = free_port()
        command = ["-m", "benchmarks.serving.direct", str(self.world.artifacts), self.world.version, str(port)]
        return self._serve(name, command, port)

    def wait(self) -> None:
        """Until all that were started answer."""
        while self._starting:
            self._starting.pop().wait()

    def request(self, user: int) -> bytes:
        """A serialised request for ten items for one user of the world."""
        return recommender_pb2.RecommendRequest(user_id=f"u-{user % USERS}", k=10).SerializeToString()

    def _interpreter(self, name: str, sent: Sent) -> Served:
        plans, encoder, port = self._folder / f"{name}.plans", self._folder / f"{name}.onnx", free_port()
        plans.write_bytes(sent.plans)
        encoder.write_bytes(sent.encoder)
        command = ["-m", "benchmarks.serving.interpreter", str(port), str(plans), str(encoder)]
        return self._start(f"{name}-interpreter", command, port, core=self.load_core)

    def _serve(
        self,
        name: str,
        command: list[str],
        port: int,
        metrics_port: int = 0,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Served:
        self.servers[name] = self._start(name, command, port, metrics_port, environment, folder, self.server_core)
        return self.servers[name]

    def _start(
        self,
        name: str,
        command: list[str],
        port: int,
        metrics_port: int = 0,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        core: int | None = None,
    ) -> Served:
        served = Served(
            command,
            port=port,
            metrics_port=metrics_port,
            core=core,
            environment=self._environment | dict(environment or {}),
            folder=folder,
            log=self._folder / f"{name}.log",
        )
        self._stack.callback(served.stop)
        self._starting.append(served)
        return served


def ask(served: Served, request: bytes) -> recommender_pb2.RecommendResponse:
    """One answer."""
    with grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        stub = recommender_pb2_grpc.RecommenderStub(channel)
        return stub.Recommend(recommender_pb2.RecommendRequest.FromString(request), timeout=_CALL_S)


def run_direct(served: Served, batch: int, calls: int) -> None:
    """Runs a model's graphs `calls` times over `batch` users each."""
    with socket.create_connection(("127.0.0.1", served.port), 10) as line:
        line.settimeout(_CALL_S)
        line.sendall(f"{batch} {calls}\n".encode())
        if not line.makefile("rb").readline():
            raise RuntimeError("onnxruntime's own process ended")
