"""`recsae up` and `down` with the real services: what dies comes back, and no way of ending leaves anything behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsae.cli.workspace import Workspace
from recsae.recommenders.importing import import_bundle
from recsae.recommenders.synthetic import tiny_bundle

_WAIT_S = 20.0
_PROCESSES = (
    "valkey-server|redis-server",
    "recsae_recommender",
    "recsae_interpreter",
    "beat",
    "recsae_worker.exporter",
)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; only Linux ends orphans")
Recsae = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def model_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one small model, to be copied."""
    home = tmp_path_factory.mktemp("model") / "workspace"
    store = Workspace(home).artifacts()
    imported = import_bundle(store, tiny_bundle(tmp_path_factory.mktemp("bundle")).folder)
    record = {"datasets": [], "models": [{"name": imported.name, "version": imported.version}]}
    (home / "workspace.json").write_text(json.dumps(record))
    return home


@pytest.fixture
def home(model_home: Path, tmp_path: Path) -> Iterator[Path]:
    """A workspace with one small model; nothing of it may run when the test ends."""
    copy = tmp_path / "workspace"
    shutil.copytree(model_home, copy)
    yield copy
    if (left := Workspace(copy).claim.holder()) is not None:
        os.kill(left, signal.SIGTERM)
    assert_nothing_runs(copy)


@pytest.fixture
def recsae(home: Path) -> Recsae:
    """The command in that workspace."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(home, *arguments), capture_output=True, text=True, timeout=150, check=False)

    return run


def command(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "recsae.cli", "--home", str(home), *arguments]


def processes_of(home: Path) -> dict[int, str]:
    """Command lines of processes that live from this workspace, by id: its path is in their command or environment.

    The servers, which write over theirs, have their data folder as the current one.
    """
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                line = (folder / "cmdline").read_bytes() + b"\0"
                where = os.fsencode((folder / "cwd").readlink())
                if os.fsencode(home) in line + where + (folder / "environ").read_bytes():
                    found[int(folder.name)] = line.replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                continue
    return found


def pid_of(home: Path, what: str) -> int | None:
    return next((pid for pid, line in processes_of(home).items() if re.search(what, line)), None)


def wait_until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def assert_nothing_runs(home: Path) -> None:
    deadline = time.monotonic() + _WAIT_S
    while left := processes_of(home):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def test_a_platform_heals_is_alone_and_dies_with_its_supervisor(home: Path, recsae: Recsae) -> None:
    up = recsae("up", "--detach", "--json")
    assert up.returncode == 0, up.stderr
    assert json.loads(up.stdout)["recommender"].startswith("127.0.0.1:")
    assert [what for what in _PROCESSES if pid_of(home, what) is None] == []
    supervisor = Workspace(home).claim.holder()
    assert supervisor is not None

    for again in (recsae("up", "--detach"), recsae("up")):
        assert again.returncode == 1
        assert f"(process {supervisor}); stop it with `recsae down`" in again.stderr

    killed = pid_of(home, "recsae_recommender")
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    wait_until("no new recommender", lambda: pid_of(home, "recsae_recommender") not in (None, killed))
    wait_until("not serving again", lambda: recsae("status").returncode == 0)
    status = json.loads(recsae("status", "--json").stdout)
    assert {name: entry["state"] for name, entry in status.items()} == dict.fromkeys(
        ("recommender", "interpreter", "state", "bus", "worker"), "serving"
    )

    os.kill(supervisor, signal.SIGKILL)
    assert_nothing_runs(home)
    assert (home / "running.json").exists(), "the kill left no time to remove it"
    assert "no platform runs" in recsae("status").stderr
    assert "Nothing runs" in recsae("down").stdout


@pytest.mark.parametrize("how", ["sigterm", "sigint", "down"])
def test_a_start_can_be_stopped_half_way(home: Path, recsae: Recsae, how: str) -> None:
    with subprocess.Popen(command(home, "up", "--quiet"), stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        assert any(line.split() == ["recommender", "starting"] for line in up.stdout)
        if how == "down":
            assert recsae("down", "--json").stdout == '{\n  "stopped": true\n}\n'
        else:
            up.send_signal(signal.SIGTERM if how == "sigterm" else signal.SIGINT)
        rest = up.stdout.read()
    assert up.returncode == 130
    assert "worker" not in rest
    assert [line.split()[0] for line in rest.splitlines() if "stopping" in line][-1:] == ["bus"]
    assert_nothing_runs(home)


def test_a_detached_start_that_fails_says_why_and_leaves_nothing(home: Path, recsae: Recsae) -> None:
    next((home / "artifacts" / "model").glob("*/trunk.onnx")).write_bytes(b"damaged")
    up = recsae("up", "--detach")
    assert up.returncode == 1
    assert "the platform did not start (exit code 1)" in up.stderr
    assert "recommender ended with exit code" in up.stderr
    assert "trunk.onnx does not match its checksum" in up.stderr
    assert not (home / "running.json").exists()
    assert_nothing_runs(home)
