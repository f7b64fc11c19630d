"""One supervised child process: start, log, notice its end, stop.

A child dies with its supervisor (PDEATHSIG on Linux), so a killed platform leaves no orphan behind. Not here: in what
order children start and which are started again (`recsae.cli.keeper`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recsae.errors import FailedPreconditionError, UnavailableError

_TAIL_LINES = 15
_LAST_LINES_S = 2.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

LineSink = Callable[[str, str], None]
ExitSink = Callable[["Process"], None]


@dataclass(frozen=True)
class ProcessSpec:
    """What to start.

    `ready` gets the process id, takes about a second at most and says whether the process answers; without it the
    process counts as ready at once. `stop_after_s` is its time to drain.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[int], bool] | None = None
    stop_after_s: float = 15.0


class Process:
    """A started child whose output goes to a log file and, line by line, to `sink`; `on_exit` hears of its end.

    Start it from a thread that lives as long as the supervisor: PDEATHSIG comes with the end of the starting thread.
    """

    def __init__(
        self, spec: ProcessSpec, log_folder: Path, sink: LineSink | None = None, on_exit: ExitSink | None = None
    ) -> None:
        """Starts it at once; FailedPreconditionError when its program cannot be run."""
        self.spec = spec
        self.log_path = log_folder / f"{spec.name}.log"
        log_folder.mkdir(parents=True, exist_ok=True)
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._sink = sink
        self._on_exit = on_exit
        self._popen = _start(spec)
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._drain, name=f"log-{spec.name}", daemon=True)
        self._reader.start()
        self._waiter = threading.Thread(target=self._wait, name=f"wait-{spec.name}", daemon=True)
        self._waiter.start()

    @property
    def pid(self) -> int:
        """Process id, also the id of its process group."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number when a signal ended it."""
        return self._popen.returncode if self._ended.is_set() else None

    def tail(self) -> str:
        """Its last lines of output."""
        return "\n".join(self._tail)

    def death(self) -> UnavailableError:
        """The error that says how it ended, with its last lines."""
        lines = self.tail() or "(it wrote nothing)"
        return UnavailableError(f"{self.spec.name} {self.ending()}; its last lines (all in {self.log_path}):\n{lines}")

    def ending(self) -> str:
        """How it ended, in words."""
        code = self.exit_code or 0
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def terminate(self) -> None:
        """Asks it to drain and end; returns at once."""
        self._popen.terminate()

    def stop(self) -> None:
        """SIGTERM, then after its time to drain SIGKILL for its whole group; returns when all of it is gone."""
        self.terminate()
        if not self._ended.wait(self.spec.stop_after_s):
            self._kill_group()
        self._waiter.join()

    def _wait(self) -> None:
        # The end of the process counts, not that of its output, which a child of its own may hold open.
        self._popen.wait()
        self._kill_group()
        self._reader.join(_LAST_LINES_S)
        self._ended.set()
        if self._on_exit is not None:
            self._on_exit(self)

    def _kill_group(self) -> None:
        with contextlib.suppress(
            ProcessLookupError, PermissionError
        ):  # macOS: not permitted when only zombies are left
            os.killpg(self._popen.pid, signal.SIGKILL)

    def _drain(self) -> None:
        stream = self._popen.stdout
        assert stream is not None
        with stream, self.log_path.open("a", encoding="utf-8") as log:
            for line in stream:
                log.write(line)
                log.flush()
                self._tail.append(line.rstrip("\n"))
                self._show(line.rstrip("\n"))

    def _show(self, line: str) -> None:
        if self._sink is None:
            return
        try:
            self._sink(self.spec.name, line)
        except OSError:  # the terminal is gone; the pipe must be read all the same, or the child would block
            self._sink = None


def _start(spec: ProcessSpec) -> subprocess.Popen[str]:
    supervisor = os.getpid()

    def die_with_supervisor() -> None:
        if _libc is not None:
            # Not SIGTERM: a Celery worker whose broker ends beside it drains for ever.
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != supervisor:  # it ended before the line above
                os._exit(1)

    try:
        return subprocess.Popen(
            list(spec.command),
            env={**os.environ, **spec.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops its children in order
            preexec_fn=die_with_supervisor,
        )
    except OSError as error:
        raise FailedPreconditionError(f"{spec.name} cannot be started: {error}") from error
