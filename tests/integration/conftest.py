"""Real servers for integration tests."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from recsae.cli.servers import find_server_binary

_READY_S = 20.0


class RedisServer:
    """A real Redis or Valkey process on a free loopback port that can be killed and started again on its data."""

    def __init__(self, folder: Path, *options: str) -> None:
        """Starts it with further options; every write is on disk before it is acknowledged."""
        self._folder = folder
        self._options = options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.start()

    @property
    def url(self) -> str:
        """redis:// URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def start(self) -> None:
        """Starts the process on the same folder and port, and waits until it answers."""
        command = [str(find_server_binary()), "--bind", "127.0.0.1", "--port", str(self.port), "--save", ""]
        command += ["--dir", str(self._folder), "--appendonly", "yes", "--appendfsync", "always"]
        command += self._options
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + _READY_S
        while True:
            try:
                with redis.Redis(port=self.port, socket_timeout=1.0) as client:
                    client.ping()
                return
            except redis.RedisError:
                assert self._process.poll() is None, "the server ended while starting"
                assert time.monotonic() < deadline, "the server did not answer in time"

    def kill(self) -> None:
        """SIGKILL: nothing gets the chance to be flushed."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def pause(self) -> None:
        """Stops its work without closing a connection, until `resume`."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it work again."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends it."""
        if self._process.poll() is None:
            self.resume()
            self._process.terminate()
            self._process.wait(timeout=10)


@pytest.fixture(scope="session")
def _shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis_url(_shared_redis: RedisServer) -> str:
    """URL of a real server, empty at the start of each test."""
    with redis.Redis.from_url(_shared_redis.url) as client:
        client.flushall()
    return _shared_redis.url


@pytest.fixture
def valkey(redis_url: str) -> Iterator[redis.Redis]:
    """A client (bytes in, bytes out) of that server."""
    with redis.Redis.from_url(redis_url, socket_timeout=10.0) as client:
        yield client


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, to kill and start again."""
    folder = tmp_path / "own-redis"
    folder.mkdir()
    server = RedisServer(folder)
    yield server
    server.stop()
