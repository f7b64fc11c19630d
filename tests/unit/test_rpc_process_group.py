"""A group of processes: when it gives up, and what it does with one that neither answers nor ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from recsae.errors import FailedPreconditionError
from recsae.rpc.process_group import GroupLimits, ProcessGroup

READY = 'print(\'{"ready": ""}\', flush=True)\n'
SERVES_ONCE = f"""
import os, pathlib, sys
mark = pathlib.Path(os.environ["MARK"])
if mark.exists():
    sys.exit(3)
mark.touch()
{READY}sys.stdin.read()
"""
HANGS = f"""
import threading
{READY}threading.Event().wait()
"""


def group(script: str, mark: Path, processes: int = 1, **limits: float) -> tuple[ProcessGroup, threading.Event]:
    """A group of processes that run the script, and the event of its giving up."""
    failed = threading.Event()
    environment = {**os.environ, "MARK": str(mark)}
    patience = GroupLimits(most_tries=3, first_pause_s=0.001, **limits)
    return ProcessGroup([sys.executable, "-c", script], [environment] * processes, patience, failed.set), failed


def test_one_that_cannot_start_again_ends_the_group_after_so_many_tries(tmp_path: Path) -> None:
    made, failed = group(SERVES_ONCE, tmp_path / "mark")
    made.start()
    os.kill(made.pids()[0], signal.SIGKILL)
    assert failed.wait(30)
    made.stop()
    assert made.failure.startswith("process 0 ended with status 3 before it served, 3 times in a row")
    assert made.restarts() == [3]
    assert made.pids() == []


def test_one_that_never_started_ends_the_group_at_once(tmp_path: Path) -> None:
    (tmp_path / "mark").touch()
    made, failed = group(SERVES_ONCE, tmp_path / "mark", processes=2)
    with pytest.raises(FailedPreconditionError, match="ended with status 3 before it served, at the start"):
        made.start()
    assert made.pids() == []
    assert not failed.is_set()


def test_one_that_hangs_neither_holds_up_the_metrics_nor_the_end(tmp_path: Path) -> None:
    made, _ = group(HANGS, tmp_path / "mark", metrics_s=0.05, stop_s=0.05)
    made.start()
    (pid,) = made.pids()
    began = time.monotonic()
    assert made.expositions() == [""]
    assert made.expositions() == [""]  # not asked again before it has answered
    made.stop()
    assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
