"""Runs a whole local platform: two Redis servers, recommender, interpreter, worker, beat and exporter.

Starts them in order of need, restarts what dies, stops them in reverse. Not here: what each process does.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from recsae.cli.processes import LineSink, Process, ProcessSpec
from recsae.cli.servers import bus_server, state_server
from recsae.cli.workspace import Addresses, ModelEntry, Workspace
from recsae.errors import FailedPreconditionError, UnavailableError

_READY_S = 60.0
_RESTARTS_ALLOWED = 5
_RESTART_WINDOW_S = 60.0
_DRAIN_PROBE_S = "0"  # no load balancer watches a local platform's health

Announce = Callable[[str, str], None]


@dataclass(frozen=True)
class Ports:
    """Loopback ports of one platform."""

    state: int = 6390
    bus: int = 6391
    recommender: int = 50051
    interpreter: int = 50052
    recommender_metrics: int = 9101
    interpreter_metrics: int = 9102
    worker_metrics: int = 9103

    @classmethod
    def choose(cls) -> Ports:
        """The default ports, each replaced by a free one when it is taken."""
        return cls(**{name: _free_or(port) for name, port in vars(cls()).items()})


@dataclass(frozen=True)
class ServingOptions:
    """What `recsae up` lets people set."""

    observe_sample: float = 0.1
    log_level: str = "info"


class Supervisor:
    """Owns the processes of one workspace's platform."""

    def __init__(
        self, workspace: Workspace, ports: Ports, options: ServingOptions, sink: LineSink | None = None
    ) -> None:
        """`sink` gets every line of every process."""
        self._workspace = workspace
        self._ports = ports
        self._options = options
        self._sink = sink
        self._processes: dict[str, Process] = {}
        self._exits: queue.SimpleQueue[Process | None] = queue.SimpleQueue()
        self._stopping = False

    @contextlib.contextmanager
    def running(self, announce: Announce) -> Iterator[Addresses]:
        """Everything up and ready on entry, everything stopped on exit, also when starting fails half way."""
        if (running := self._workspace.addresses()) is not None:
            raise FailedPreconditionError(
                f"a platform already runs in {self._workspace.home} (process {running.supervisor_pid}); "
                "stop it with `recsae down`"
            )
        try:
            for stage in self._stages():
                for spec in stage:
                    self._start(spec)
                    announce(spec.name, "starting")
                for spec in stage:
                    if spec.ready is not None:
                        spec.ready()
                    self._processes[spec.name].fail_if_dead()
                    announce(spec.name, "ready")
            addresses = self.addresses()
            self._workspace.write_addresses(addresses)
            yield addresses
        finally:
            self.stop(announce)

    def watch(self, announce: Announce) -> None:
        """Blocks until `request_stop`, restarting processes that end on their own.

        UnavailableError when one ends more than five times within a minute.
        """
        ended: dict[str, list[float]] = {}
        while (process := self._exits.get()) is not None:
            spec = process.spec
            if self._stopping or self._processes.get(spec.name) is not process:
                continue
            recent = [at for at in ended.get(spec.name, []) if time.monotonic() - at < _RESTART_WINDOW_S]
            ended[spec.name] = [*recent, time.monotonic()]
            if len(recent) >= _RESTARTS_ALLOWED:
                process.fail_if_dead()
            announce(spec.name, "restarting")
            self._start(spec)

    def request_stop(self) -> None:
        """Makes `watch` return; callable from a signal handler."""
        self._exits.put(None)

    def stop(self, announce: Announce) -> None:
        """Stops everything, last started first."""
        self._stopping = True
        for process in reversed(list(self._processes.values())):
            announce(process.spec.name, "stopping")
            process.stop()
        self._processes.clear()
        self._workspace.clear_addresses()

    def addresses(self) -> Addresses:
        """Where everything listens."""
        ports = self._ports
        return Addresses(
            recommender=f"127.0.0.1:{ports.recommender}",
            interpreter=f"127.0.0.1:{ports.interpreter}",
            state_url=f"redis://127.0.0.1:{ports.state}/0",
            bus_url=f"redis://127.0.0.1:{ports.bus}/0",
            metrics={
                "recommender": f"http://127.0.0.1:{ports.recommender_metrics}/metrics",
                "interpreter": f"http://127.0.0.1:{ports.interpreter_metrics}/metrics",
                "worker": f"http://127.0.0.1:{ports.worker_metrics}/metrics",
            },
            supervisor_pid=os.getpid(),
        )

    def _start(self, spec: ProcessSpec) -> None:
        self._processes[spec.name] = Process(spec, self._workspace.logs, self._sink, self._exits.put)

    def _stages(self) -> list[list[ProcessSpec]]:
        workspace, ports = self._workspace, self._ports
        return [
            [
                state_server(workspace.server_folder("state"), ports.state),
                bus_server(workspace.server_folder("bus"), ports.bus),
            ],
            [self._interpreter(), self._recommender()],
            [self._worker(), self._beat(), self._exporter()],
        ]

    def _recommender(self) -> ProcessSpec:
        addresses, ports = self.addresses(), self._ports
        models = self._workspace.models()
        if not models:
            self._workspace.model("")
        environment = {
            "RECSAE_RECOMMENDER_PORT": str(ports.recommender),
            "RECSAE_RECOMMENDER_METRICS_PORT": str(ports.recommender_metrics),
            "RECSAE_RECOMMENDER_ARTIFACTS": self._workspace.artifacts_url,
            "RECSAE_RECOMMENDER_MODELS": ",".join(f"{model.name}={model.version}" for model in models),
            "RECSAE_RECOMMENDER_HISTORY": self._history_url(models[0]),
            "RECSAE_RECOMMENDER_INTERPRETER": addresses.interpreter,
            "RECSAE_RECOMMENDER_OBSERVE_SAMPLE": str(self._options.observe_sample),
            "RECSAE_RECOMMENDER_LOG_LEVEL": self._options.log_level,
            "RECSAE_RECOMMENDER_DRAIN_PROBE_S": _DRAIN_PROBE_S,
        }
        return self._python("recommender", ["-m", "recsae_recommender"], environment, ports.recommender)

    def _history_url(self, model: ModelEntry) -> str:
        if not model.dataset:
            return ""
        return f"file:{self._workspace.dataset(model.dataset).folder}"

    def _interpreter(self) -> ProcessSpec:
        addresses, ports = self.addresses(), self._ports
        environment = {
            "RECSAE_INTERPRETER_PORT": str(ports.interpreter),
            "RECSAE_INTERPRETER_METRICS_PORT": str(ports.interpreter_metrics),
            "RECSAE_INTERPRETER_ARTIFACTS": self._workspace.artifacts_url,
            "RECSAE_INTERPRETER_STATE_URL": addresses.state_url,
            "RECSAE_INTERPRETER_BUS_URL": addresses.bus_url,
            "RECSAE_INTERPRETER_RECOMMENDERS": addresses.recommender,
            "RECSAE_INTERPRETER_LOG_LEVEL": self._options.log_level,
            "RECSAE_INTERPRETER_DRAIN_PROBE_S": _DRAIN_PROBE_S,
        }
        return self._python("interpreter", ["-m", "recsae_interpreter"], environment, ports.interpreter)

    def _worker(self) -> ProcessSpec:
        arguments = [
            *("-m", "celery", "-A", "recsae_worker.app", "worker", "-c", "1"),
            *("-Q", "collect,train,concepts,drift", "--loglevel", self._options.log_level),
        ]
        bus_url = self.addresses().bus_url
        return self._python("worker", arguments, self._worker_environment(), ready=lambda: self._worker_ready(bus_url))

    def _beat(self) -> ProcessSpec:
        schedule = self._workspace.server_folder("beat") / "schedule"
        arguments = [
            *("-m", "celery", "-A", "recsae_worker.app", "beat", "--schedule", str(schedule)),
            *("--loglevel", self._options.log_level),
        ]
        return self._python("beat", arguments, self._worker_environment())

    def _exporter(self) -> ProcessSpec:
        environment = {**self._worker_environment(), "RECSAE_WORKER_METRICS_PORT": str(self._ports.worker_metrics)}
        return self._python("exporter", ["-m", "recsae_worker.exporter"], environment)

    def _worker_environment(self) -> dict[str, str]:
        addresses = self.addresses()
        return {
            "RECSAE_WORKER_ARTIFACTS": self._workspace.artifacts_url,
            "RECSAE_WORKER_STATE_URL": addresses.state_url,
            "RECSAE_WORKER_BUS_URL": addresses.bus_url,
            "RECSAE_WORKER_RECOMMENDER": addresses.recommender,
            "RECSAE_WORKER_LOG_LEVEL": self._options.log_level,
            "RECSAE_WORKER_TRAIN_THREADS": str(max(1, (os.cpu_count() or 2) - 1)),  # one core stays free for serving
        }

    def _python(
        self,
        name: str,
        arguments: list[str],
        environment: dict[str, str],
        port: int | None = None,
        ready: Callable[[], None] | None = None,
    ) -> ProcessSpec:
        if port is not None:

            def ready() -> None:
                self._wait_for_health(name, port)

        unbuffered = {"PYTHONUNBUFFERED": "1", **environment}
        return ProcessSpec(name, [sys.executable, *arguments], unbuffered, ready=ready)

    def _wait_for_health(self, name: str, port: int) -> None:
        """Waits until the gRPC health service of a child says SERVING."""
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

        deadline = time.monotonic() + _READY_S
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while time.monotonic() < deadline:
                self._processes[name].fail_if_dead()
                with contextlib.suppress(grpc.RpcError):
                    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=2.0, wait_for_ready=True)
                    for reply in watch:
                        if reply.status == health_pb2.HealthCheckResponse.SERVING:
                            watch.cancel()
                            return
        raise UnavailableError(f"{name} was not ready within {_READY_S:.0f} s; see {self._processes[name].log_path}")

    def _worker_ready(self, bus_url: str) -> None:
        """Waits until a worker answers a ping over the bus."""
        from celery import Celery

        deadline = time.monotonic() + _READY_S
        with Celery(broker=bus_url, set_as_current=False) as app:
            while time.monotonic() < deadline:
                self._processes["worker"].fail_if_dead()
                if app.control.ping(timeout=0.5, limit=1):
                    return
        raise UnavailableError(
            f"worker was not ready within {_READY_S:.0f} s; see {self._processes['worker'].log_path}"
        )


def _free_or(port: int) -> int:
    for candidate in (port, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UnavailableError("no free port on 127.0.0.1")
