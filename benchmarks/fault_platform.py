"""The platform of the fault run: a Redis, an interpreter and recommenders, each a process that can be killed or paused.

Recommenders are made in pairs: `direct` ones call the interpreter themselves, `proxied` ones through the man in the
middle (`fault_proxy`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import redis

from benchmarks.fault_world import MODEL, World
from recsae.cli.servers import find_server_binary
from recsae.pipeline.triples import Triple
from recsae.store.channels import PRODUCTION
from recsae.store.channels_redis import RedisChannelStore
from recsae.store.events import change_now
from recsae.store.redis import connect

PLAN_MAX_AGE_S = 3.0
"""Short, so that the run sees plans grow too old; the default is ten minutes."""
STATE_MAX_AGE_S = 2.0
"""After this long without the state server the interpreter confirms plans no longer; 15 s by default."""
_READY_S = 60.0
# Stands for a clock that is off: what the process takes for the time of day, from its first line on. grpc's own
# modules keep the true one: they reckon with the system's clock elsewhere too, which a process cannot be given.
_CLOCK_OFF = """
import runpy, sys, time, types
import grpc._channel, grpc._server
true = types.ModuleType("time")
true.__dict__.update(vars(time))
for name, module in list(sys.modules.items()):
    if name.split(".")[0] == "grpc" and getattr(module, "time", None) is time:
        module.time = true
time.time = lambda: true.time() + {ahead}
runpy.run_module("recsae_recommender", run_name="__main__")
"""


@dataclass
class Service:
    """One process, its port and its log file."""

    name: str
    command: list[str]
    environment: dict[str, str]
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, once the old one is gone; returns before it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=os.environ | self.environment, stdout=log, stderr=subprocess.STDOUT
            )

    def wait_until_ready(self) -> None:
        """Blocks until its port takes connections; RuntimeError with the end of its log when there is none."""
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline and self.process is not None and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not start; the end of its log:\n{self.log.read_text()[-2000:]}")

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; SIGKILL waits for the end."""
        assert self.process is not None
        self.process.send_signal(number)
        if number is signal.SIGKILL:
            self.process.wait()

    def stop(self) -> None:
        """Ends it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


@dataclass
class Platform:
    """All processes of a run."""

    world: World
    folder: Path
    state: Service
    interpreter: Service
    services: list[Service] = field(default_factory=list)

    def recommender(self, name: str, interpreter_port: int, steering: str, ahead_s: float = 0.0) -> Service:
        """Starts a recommender whose interpreter is at a port and whose clock is ahead by so much."""
        command = [sys.executable, "-m", "recsae_recommender"]
        if ahead_s:
            command = [sys.executable, "-c", _CLOCK_OFF.format(ahead=ahead_s)]
        settings = {
            "ARTIFACTS": str(self.world.root),
            "MODELS": f"{MODEL}={self.world.version}",
            "INTERPRETER": f"127.0.0.1:{interpreter_port}",
            "STEERING": steering,
            "OBSERVE_SAMPLE": "0",
            "PLAN_MAX_AGE_S": str(PLAN_MAX_AGE_S),
        }
        service = _service(name, command, "RECOMMENDER", settings, self.folder)
        self.services.append(service)
        service.start()
        return service

    def promote(self, triple: Triple) -> None:
        """Points the model's production channel at a triple."""
        change = change_now(actor="benchmark", action="channel.promote", reason="a fault run", request_id="fault")
        with connect(f"redis://127.0.0.1:{self.state.port}/0") as client:
            RedisChannelStore(client).point(MODEL, PRODUCTION, triple, change)

    def wait_for_state(self) -> None:
        """Blocks until Redis answers."""
        deadline = time.monotonic() + _READY_S
        while True:
            with contextlib.suppress(redis.RedisError), redis.Redis(port=self.state.port, socket_timeout=1) as client:
                client.ping()
                return
            if time.monotonic() > deadline:
                raise RuntimeError("Redis did not answer")
            time.sleep(0.02)


@contextlib.contextmanager
def started_platform(world: World, folder: Path) -> Iterator[Platform]:
    """Redis and the interpreter, with the first triple promoted; ends everything on the way out."""
    port = free_port()
    command = [
        str(find_server_binary()),
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--save",
        "",
        "--dir",
        str(folder),
    ]
    state = Service(
        "redis", [*command, "--appendonly", "yes", "--appendfsync", "always"], {}, port, folder / "redis.log"
    )
    url = f"redis://127.0.0.1:{port}/0"
    settings = {
        "ARTIFACTS": str(world.root),
        "STATE_URL": url,
        "BUS_URL": url,
        "RECOMMENDERS": "127.0.0.1:1",
        "STATE_MAX_AGE_S": str(STATE_MAX_AGE_S),
        "PLAN_MAX_AGE_S": str(STATE_MAX_AGE_S + PLAN_MAX_AGE_S),
    }
    interpreter = _service("interpreter", [sys.executable, "-m", "recsae_interpreter"], "INTERPRETER", settings, folder)
    platform = Platform(world, folder, state, interpreter)
    try:
        state.start()
        platform.wait_for_state()
        platform.promote(world.triples[0])
        interpreter.start()
        interpreter.wait_until_ready()
        yield platform
    finally:
        for service in (*platform.services, interpreter, state):
            service.stop()


def free_port() -> int:
    """A port nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _service(name: str, command: list[str], prefix: str, settings: dict[str, str], folder: Path) -> Service:
    port = free_port()
    every = {"PORT": str(port), "METRICS_PORT": "0", "DRAIN_PROBE_S": "0", "DRAIN_GRACE_S": "1", **settings}
    environment = {f"RECSAE_{prefix}_{key}": value for key, value in every.items()}
    return Service(name, command, {**environment, "OMP_NUM_THREADS": "1"}, port, folder / f"{name}.log")


def log_events(service: Service) -> list[str]:
    """Events a service logged, in order."""
    events = []
    for line in service.log.read_text().splitlines():
        with contextlib.suppress(ValueError):
            events.append(str(json.loads(line).get("event")))
    return events
