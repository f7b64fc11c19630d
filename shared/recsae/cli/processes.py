"""One supervised child process: start, log, wait until ready, stop.

A child dies with its supervisor (PDEATHSIG on Linux), so a killed platform leaves no orphan behind.
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

from recsae.errors import UnavailableError

_TAIL_LINES = 15
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

LineSink = Callable[[str, str], None]
ExitSink = Callable[["Process"], None]


@dataclass(frozen=True)
class ProcessSpec:
    """What to start. `ready` blocks until it answers or raises; `stop_after_s` is its time to drain."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], None] | None = None
    stop_after_s: float = 15.0


class Process:
    """A started child whose output goes to a log file and, line by line, to `sink`; `on_exit` hears of its end."""

    def __init__(
        self, spec: ProcessSpec, log_folder: Path, sink: LineSink | None = None, on_exit: ExitSink | None = None
    ) -> None:
        """Starts it at once."""
        self.spec = spec
        self.log_path = log_folder / f"{spec.name}.log"
        log_folder.mkdir(parents=True, exist_ok=True)
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._sink = sink
        self._on_exit = on_exit
        self._popen = subprocess.Popen(
            list(spec.command),
            env={**os.environ, **spec.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops its children in order
            preexec_fn=_die_with_parent,
        )
        self._reader = threading.Thread(target=self._drain, name=f"log-{spec.name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id, also the id of its process group."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def tail(self) -> str:
        """Its last lines of output."""
        return "\n".join(self._tail)

    def fail_if_dead(self) -> None:
        """UnavailableError with the last lines when it has ended."""
        if self.exit_code is not None:
            self._reader.join(timeout=2)
            raise UnavailableError(
                f"{self.spec.name} ended with exit code {self.exit_code}; its last lines (all in {self.log_path}):\n"
                f"{self.tail()}"
            )

    def stop(self) -> None:
        """SIGTERM, then after its time to drain SIGKILL for its whole group."""
        if self.exit_code is None:
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(self.spec.stop_after_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self._reader.join(timeout=2)

    def _drain(self) -> None:
        stream = self._popen.stdout
        assert stream is not None
        with self.log_path.open("a", encoding="utf-8") as log:
            for line in stream:
                log.write(line)
                log.flush()
                self._tail.append(line.rstrip("\n"))
                if self._sink is not None:
                    self._sink(self.spec.name, line.rstrip("\n"))
        if self._on_exit is not None:
            self._on_exit(self)


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
