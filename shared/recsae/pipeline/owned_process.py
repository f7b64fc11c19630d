"""A subprocess owned by a step: it reports on stdout and cannot outlive its owner.

Three ways out are covered: the step stops it (SIGTERM, then SIGKILL for its group), the owner dies (its stdin
reaches end of file, and on Linux the kernel kills it), or it ends by itself. Numeric libraries start threads, so
training never runs inside a worker that forks.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from recsae.errors import FailedPreconditionError, RecsaeError
from recsae.pipeline.leases import Lease

_GRACE_S = 5.0
_POLL_S = 0.2
_STDERR_TAIL = 600
# Asks the kernel for SIGKILL when the owner (argument 1) dies, then becomes the command. A `preexec_fn` would save the
# start of an interpreter, but it runs gRPC's fork handlers, which now and then abort the child of a gRPC client.
_PR_SET_PDEATHSIG = 1
_LAUNCHER = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, 9)
if os.getppid() != int(sys.argv[1]): sys.exit("the owner died before this process started")
os.execvp(sys.argv[2], sys.argv[2:])
"""


class SubprocessFailedError(RecsaeError):
    """The subprocess ended without saying it was done."""


def run_owned(
    command: Sequence[str], lease: Lease, on_event: Callable[[Mapping[str, Any]], None], env: Mapping[str, str]
) -> Mapping[str, Any]:
    """Runs a command whose stdout is JSON lines; returns the one whose "event" is "done".

    A line whose "event" is "failed" becomes an error with its "message": FailedPreconditionError when it says "final"
    (trying again cannot help), else SubprocessFailedError. Every other line goes to `on_event`. StepStopped when the
    lease says so; SubprocessFailedError, with what it wrote last, when it ended without a word.
    """
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [*_tied_to_owner(), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **env},
            start_new_session=True,
        )
        lines = _LineReader(child)
        try:
            while not lines.ended.wait(_POLL_S):
                lines.deliver(on_event)
                lease.check()
            lines.deliver(on_event)
            code = child.wait(_GRACE_S)
        finally:
            _end(child)
        lease.check()
        if lines.failed:
            kind = FailedPreconditionError if lines.failed.get("final") else SubprocessFailedError
            raise kind(str(lines.failed.get("message")))
        if lines.done is None or code != 0:
            raise SubprocessFailedError(_ending(code, errors))
        return lines.done


class _LineReader:
    """Reads stdout in a thread; the owner's thread delivers, so that callbacks never run beside it."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._lines: list[bytes] = []
        self._lock = threading.Lock()
        self.ended = threading.Event()
        self.done: Mapping[str, Any] | None = None
        self.failed: Mapping[str, Any] = {}
        threading.Thread(target=self._read, name="subprocess-lines", daemon=True).start()

    def deliver(self, on_event: Callable[[Mapping[str, Any]], None]) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a library printed something
            if not isinstance(event, dict):
                continue
            if event.get("event") == "done":
                self.done = event
            elif event.get("event") == "failed":
                self.failed = event
            else:
                on_event(event)

    def _read(self) -> None:
        assert self._child.stdout is not None
        with contextlib.suppress(ValueError):  # closed by the owner after it ended the child
            for line in self._child.stdout:
                with self._lock:
                    self._lines.append(line)
        self.ended.set()


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _ending(code: int, errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - _STDERR_TAIL))
    tail = errors.read().decode(errors="replace").strip().rsplit("\n", 1)[-1]
    ending = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"the subprocess {ending}; it said last: {tail or 'nothing'}"


def _tied_to_owner() -> list[str]:
    """What to put before a command on Linux; elsewhere the end of its stdin has to do."""
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())] if sys.platform == "linux" else []
