"""One workspace and one demo run shared by all end-to-end tests, through the command people type."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_DEMO_S = 420.0


Recsae = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="session")
def recsae(home: Path) -> Recsae:
    """The command, with tables wide enough that no cell is broken over lines."""

    def run(*arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "recsae.cli", "--home", str(home), *arguments]
        environment = {**os.environ, "COLUMNS": "220"}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment, check=False)

    return run


@pytest.fixture(scope="session")
def demo_output(recsae: Recsae) -> str:
    """Output of one whole demo on the planted data set."""
    done = recsae("demo", "--data", "planted", "--ci", timeout_s=_DEMO_S)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


@pytest.fixture(scope="session")
def left_behind(home: Path, demo_output: str) -> list[str]:
    """What still runs in the workspace right after the demo."""
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    running = [line for line in listing.splitlines() if str(home) in line]
    return running + [path.name for path in home.glob("running.json")]


@pytest.fixture(scope="session")
def platform(recsae: Recsae, left_behind: list[str]) -> Iterator[None]:
    """The platform, started again after the demo on what the demo left behind."""
    started = recsae("up", "--detach", "--observe-sample", "1", timeout_s=150.0)
    assert started.returncode == 0, started.stdout + started.stderr
    yield
    stopped = recsae("down", timeout_s=90.0)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
