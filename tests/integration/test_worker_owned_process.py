"""A subprocess owned by a step: its events arrive, and it outlives neither its step nor its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from recsae.pipeline.leases import Lease, StepStopped
from recsae.pipeline.owned_process import SubprocessFailedError, run_owned

_WAIT_S = 20.0

WRITES_PID_AND_WAITS = """
import json, os, signal, sys, time
from pathlib import Path
if sys.argv[2] == "deaf": signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path(sys.argv[1]).write_text(str(os.getpid()))
print(json.dumps({"event": "progress", "done": 0.5}), flush=True)
time.sleep(60)
"""

OWNER = """
import sys, threading
from recsae.pipeline.leases import Lease
from recsae.pipeline.owned_process import run_owned
run_owned([sys.executable, sys.argv[1], sys.argv[2], "deaf"], Lease(), lambda event: None, {})
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_for_pid(path: Path) -> int:
    deadline = time.monotonic() + _WAIT_S
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, "the subprocess did not start"
        time.sleep(0.01)
    return int(path.read_text())


def assert_gone(pid: int) -> None:
    deadline = time.monotonic() + _WAIT_S
    while _alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_events_arrive_in_order_and_noise_is_skipped() -> None:
    code = """if True:
        import json
        for n in range(3): print(json.dumps({"event": "progress", "n": n}))
        print("a library says hello"); print("[1, 2]")
        print(json.dumps({"event": "done", "scores": {"fvu": 0.1}}))"""
    seen: list[Mapping[str, Any]] = []
    done = run_owned(python(code), Lease(), seen.append, {})
    assert [event["n"] for event in seen] == [0, 1, 2]
    assert done["scores"] == {"fvu": 0.1}


def test_a_crash_says_what_was_said_last() -> None:
    with pytest.raises(SubprocessFailedError, match=r"exit code 1; it said last: ZeroDivisionError"):
        run_owned(python("1 / 0"), Lease(), lambda event: None, {})


def test_a_kill_says_so() -> None:
    with pytest.raises(SubprocessFailedError, match="killed by signal 9"):
        run_owned(python("import os; os.kill(os.getpid(), 9)"), Lease(), lambda event: None, {})


def test_a_failure_the_subprocess_reports_is_passed_on() -> None:
    code = 'print(\'{"event": "failed", "message": "the disk is full"}\'); raise SystemExit(1)'
    with pytest.raises(SubprocessFailedError, match=r"^the disk is full$"):
        run_owned(python(code), Lease(), lambda event: None, {})


def test_ending_well_without_saying_done_is_a_failure() -> None:
    with pytest.raises(SubprocessFailedError, match="exit code 0"):
        run_owned(python("pass"), Lease(), lambda event: None, {})


def test_a_stopped_lease_ends_a_subprocess_that_ignores_sigterm(tmp_path: Path) -> None:
    lease, pid_file = Lease(), tmp_path / "pid"

    def stop_when_started() -> None:
        wait_for_pid(pid_file)
        lease.stop("the run has ended")

    threading.Thread(target=stop_when_started).start()
    with pytest.raises(StepStopped, match="the run has ended"):
        run_owned([*python(WRITES_PID_AND_WAITS), str(pid_file), "deaf"], lease, lambda event: None, {})
    assert_gone(int(pid_file.read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the children of a killed process")
def test_a_killed_owner_leaves_no_orphan(tmp_path: Path) -> None:
    script, pid_file = tmp_path / "child.py", tmp_path / "pid"
    script.write_text(WRITES_PID_AND_WAITS)
    owner = subprocess.Popen([*python(OWNER), str(script), str(pid_file)])
    child = wait_for_pid(pid_file)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert_gone(child)
