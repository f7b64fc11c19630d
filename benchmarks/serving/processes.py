"""Processes of a benchmark: started on a processor of their own, watched by their processor time, ended.

Not here: what they serve.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

_READY_S = 180.0
_END_S = 20.0
# How Linux names the processor-time clock of another process (clock_getcpuclockid(3)).
_PROCESS_CLOCK = 2


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def cores() -> tuple[int | None, int | None]:
    """(core for servers, core for the load); None where there is no second core or pinning is not possible.

    Found out once, before this process puts itself on one of them.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


class Served:
    """A server process on `port`, with its metrics on `metrics_port` (0 = it has none)."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        port: int,
        metrics_port: int = 0,
        core: int | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        program: str = sys.executable,
        log: Path,
    ) -> None:
        """Starts `PROGRAM COMMAND`, by default this Python; `log` takes what it writes."""
        self.port, self.metrics_port = port, metrics_port
        self._log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [program, *command],
                env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment or {}),
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=folder,
                preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
            )

    def wait(self) -> None:
        """Until something listens on the port; RuntimeError with its last words when it ended instead."""
        deadline = time.monotonic() + _READY_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.process.args!r} did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def cpu_s(self) -> float:
        """Processor time of all its threads so far, user and system."""
        if sys.platform == "linux":
            return time.clock_gettime((~self.process.pid << 3) | _PROCESS_CLOCK)
        raise RuntimeError("the processor time of another process is read on Linux only")

    def metric(self, name: str, label: str = "") -> float:
        """The sum of a metric's samples; of those alone that carry `label`, e.g. `code="OK"`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        found = [line for line in lines if line.split("{")[0].split(" ")[0] == name and label in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def stop(self) -> None:
        """Ends it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
