"""What gRPC is told before it is imported: by a process that serves, for known releases, and no other wish is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from recsae.rpc import grpc_engine


def told(**environment: str) -> str:
    code = (
        "import sys; from recsae.rpc.grpc_engine import serve_in_one_thread; serve_in_one_thread(); "
        "import os; print(os.environ.get('GRPC_POLL_STRATEGY'), 'grpc' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    return subprocess.run(command, env=bare | environment, capture_output=True, text=True, check=True).stdout.strip()


def test_it_is_said_before_grpc_is_imported_and_what_was_set_stays() -> None:
    assert told() == "poll False"
    assert told(GRPC_POLL_STRATEGY="epoll1") == "epoll1 False"


def test_the_locked_release_is_known_and_others_are_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert grpc_engine.is_known(version("grpcio"))
    monkeypatch.setattr(grpc_engine, "version", lambda _name: "1.99.0")
    assert grpc_engine.engine_environment() == {}
