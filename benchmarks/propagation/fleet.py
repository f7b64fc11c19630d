"""A state server that keeps every write, the interpreter, and replicas of the recommender, each a process."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from benchmarks.propagation.triple import MODEL, publish
from benchmarks.serving.processes import Served, free_port
from recsae.cli.servers import state_server
from recsae.store.channels import PRODUCTION
from recsae.store.channels_redis import RedisChannelStore
from recsae.store.events import change_now
from recsae.store.redis import connect

_READY_S = 30.0


class Fleet:
    """A context manager; `interpreter` is a port, `replicas` are ports."""

    def __init__(self, replicas: int) -> None:
        """Starts everything and waits until it answers."""
        self._stack = ExitStack()
        try:
            self._start(Path(self._stack.enter_context(tempfile.TemporaryDirectory())), replicas)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self, folder: Path, replicas: int) -> None:
        published = publish(folder)
        url = self._state(folder)
        change = change_now(actor="benchmark", action="channel.promote", reason="a benchmark", request_id="r")
        with connect(url) as client:
            RedisChannelStore(client).point(MODEL, PRODUCTION, published.triple, change)
        self.interpreter = free_port()
        log, state = folder / "interpreter.log", {"STATE_URL": url, "BUS_URL": url, "RECOMMENDERS": "127.0.0.1:1"}
        self._service("interpreter", self.interpreter, published.artifacts, state, log).wait()
        self.replicas = [free_port() for _ in range(replicas)]
        recommender = {
            "MODELS": f"{MODEL}={published.triple.model_version}",
            "INTERPRETER": f"127.0.0.1:{self.interpreter}",
            "OBSERVE_SAMPLE": "0",
        }
        started = [
            self._service("recommender", port, published.artifacts, recommender, folder / f"{port}.log")
            for port in self.replicas
        ]
        for one in started:
            one.wait()

    def _state(self, folder: Path) -> str:
        port = free_port()
        data = folder / "state"
        data.mkdir()
        program, *arguments = state_server(data, port).command
        served = Served(arguments, program=program, port=port, log=folder / "state.log")
        self._stack.callback(served.stop)
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            with suppress(redis.RedisError), redis.Redis(port=port, socket_timeout=1.0) as client:
                client.ping()
                return f"redis://127.0.0.1:{port}/0"
            time.sleep(0.05)
        raise RuntimeError("the state server did not answer")

    def _service(self, name: str, port: int, artifacts: Path, settings: dict[str, str], log: Path) -> Served:
        values = {
            "PORT": port,
            "METRICS_PORT": 0,
            "ARTIFACTS": artifacts,
            "DRAIN_PROBE_S": 0,
            "DRAIN_GRACE_S": 1,
            **settings,
        }
        environment = {f"RECSAE_{name.upper()}_{key}": str(value) for key, value in values.items()}
        served = Served(["-m", f"recsae_{name}"], port=port, environment=environment, log=log)
        self._stack.callback(served.stop)
        return served
