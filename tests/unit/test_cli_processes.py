"""Child processes of the supervisor: their logs, their end, and that nothing of them is left behind."""

from __future__ import annotations

import os
import queue
import signal
import sys
import time
from pathlib import Path

import pytest

from recsae.cli.processes import Process, ProcessSpec
from recsae.errors import FailedPreconditionError

_WAIT_S = 20.0
_HAS_A_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"])
print(child.pid, flush=True)
"""
_DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


def spec(code: str, stop_after_s: float = 10.0) -> ProcessSpec:
    return ProcessSpec("child", [sys.executable, "-c", code], stop_after_s=stop_after_s)


class Lines:
    """A sink whose lines can be waited for."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __call__(self, name: str, line: str) -> None:
        self._queue.put(line)

    def next(self) -> str:
        return self._queue.get(timeout=_WAIT_S)


def assert_gone(pid: int) -> None:
    deadline = time.monotonic() + _WAIT_S
    while _alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_output_goes_to_the_log_the_sink_and_the_error(tmp_path: Path) -> None:
    lines, ends = Lines(), queue.SimpleQueue[Process]()
    process = Process(spec("print('one'); print('two'); raise SystemExit(3)"), tmp_path, lines, ends.put)
    assert ends.get(timeout=_WAIT_S) is process
    assert [lines.next(), lines.next()] == ["one", "two"]
    assert process.log_path.read_text() == "one\ntwo\n"
    assert process.exit_code == 3
    assert str(process.death()) == (
        f"child ended with exit code 3; its last lines (all in {tmp_path / 'child.log'}):\none\ntwo"
    )


def test_a_kill_is_called_one(tmp_path: Path) -> None:
    ends = queue.SimpleQueue[Process]()
    process = Process(spec("import os; os.kill(os.getpid(), 9)"), tmp_path, on_exit=ends.put)
    ends.get(timeout=_WAIT_S)
    assert process.exit_code == -signal.SIGKILL
    assert "child was killed by signal 9" in str(process.death())


def test_an_end_is_noticed_though_a_grandchild_holds_the_output_open(tmp_path: Path) -> None:
    lines, ends = Lines(), queue.SimpleQueue[Process]()
    Process(spec(_HAS_A_CHILD), tmp_path, lines, ends.put)
    ends.get(timeout=_WAIT_S)
    grandchild = int(next(line for line in iter(lines.next, "") if line.isdigit()))
    assert_gone(grandchild)


def test_stop_ends_the_whole_group(tmp_path: Path) -> None:
    lines = Lines()
    process = Process(spec(_HAS_A_CHILD + "time.sleep(60)"), tmp_path, lines)
    seen = {lines.next(), lines.next()}
    grandchild = int(next(line for line in seen if line.isdigit()))
    assert process.exit_code is None
    process.stop()
    assert process.exit_code == -signal.SIGTERM
    assert_gone(process.pid)
    assert_gone(grandchild)


def test_what_ignores_sigterm_is_killed_after_its_time(tmp_path: Path) -> None:
    lines = Lines()
    process = Process(spec(_DEAF, stop_after_s=0.1), tmp_path, lines)
    assert lines.next() == "deaf"
    process.stop()
    assert process.exit_code == -signal.SIGKILL


def test_stopping_what_has_ended_is_fine(tmp_path: Path) -> None:
    ends = queue.SimpleQueue[Process]()
    process = Process(spec("pass"), tmp_path, on_exit=ends.put)
    ends.get(timeout=_WAIT_S)
    process.stop()
    assert process.exit_code == 0


def test_a_lost_terminal_blocks_no_child(tmp_path: Path) -> None:
    def broken(name: str, line: str) -> None:
        raise BrokenPipeError

    ends = queue.SimpleQueue[Process]()
    process = Process(spec("for n in range(20_000): print('a line of output', n)"), tmp_path, broken, ends.put)
    ends.get(timeout=_WAIT_S)
    assert process.exit_code == 0
    assert process.tail().endswith("19999")


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FailedPreconditionError, match=r"child cannot be started: .*no-such-program"):
        Process(ProcessSpec("child", [str(tmp_path / "no-such-program")]), tmp_path)
