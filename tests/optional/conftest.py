"""What optional tests borrow from the integration tests: an interpreter and its state server, and the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.integration.conftest import _shared_redis, redis_url
from tests.integration.interpreter.conftest import point, published, start_interpreter, stubs

from recsae.cli import app as cli

__all__ = ["_shared_redis", "point", "published", "redis_url", "start_interpreter", "stubs"]

ROOT = Path(__file__).parents[2]


def recbole_environment() -> dict[str, str]:
    """Of a process of RecBole's Python: our sources are on its path, installed there is nothing of ours."""
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'shared'}", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def recbole_python() -> str:
    """A Python with RecBole, named by RECSAE_TEST_RECBOLE."""
    named = os.environ.get("RECSAE_TEST_RECBOLE", "")
    if not named:
        pytest.skip("RECSAE_TEST_RECBOLE names no Python that has RecBole; `make recbole-test` installs one")
    return str(ROOT / named)


class Outcome(NamedTuple):
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def recsae(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """The command through its entry point, in a workspace of the test's own: `tmp_path/workspace`."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["recsae", "--home", str(tmp_path / "workspace"), *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        code = end.value.code
        return Outcome(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run
