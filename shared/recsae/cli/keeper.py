"""Keeps a set of child processes running: starts them stage by stage, starts again what dies, stops all in reverse.

Not here: which processes make a platform (`recsae.cli.local_processes`) and who may supervise (`recsae.cli.claim`).
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from recsae.cli.processes import LineSink, Process, ProcessSpec
from recsae.errors import UnavailableError

_READY_S = 60.0
_PROBE_PAUSE_S = 0.05
_RESTARTS_ALLOWED = 5
_RESTART_WINDOW_S = 60.0

Announce = Callable[[str, str], None]


class Keeper:
    """Owns child processes. Every method but `request_stop` belongs to one thread, the one that started them."""

    def __init__(self, log_folder: Path, sink: LineSink | None = None) -> None:
        """`sink` gets every line of every process."""
        self._log_folder = log_folder
        self._sink = sink
        self._stages: list[list[Process]] = []
        # Ends of processes, and None for a wish to stop. A SimpleQueue may be fed from a signal handler; an Event not.
        self._news: queue.SimpleQueue[Process | None] = queue.SimpleQueue()

    def start(self, stages: Sequence[Sequence[ProcessSpec]], announce: Announce) -> None:
        """Starts the stages one after the other, each when the one before is ready.

        UnavailableError names the process that ended meanwhile or was not ready in time; KeyboardInterrupt when a stop
        is requested. What was started by then is left to `stop`.
        """
        for specs in stages:
            stage: list[Process] = []
            self._stages.append(stage)
            for spec in specs:
                stage.append(self._begin(spec))
                announce(spec.name, "starting")
            for process in stage:
                self._wait_until_ready(process)
                announce(process.spec.name, "ready")

    def watch(self, announce: Announce) -> None:
        """Blocks until `request_stop`, starting processes again that end on their own.

        UnavailableError with its last lines when one ends a sixth time within a minute.
        """
        ends: dict[str, list[float]] = {}
        while (process := self._news.get()) is not None:
            name, now = process.spec.name, time.monotonic()
            ends[name] = [at for at in ends.get(name, []) if now - at < _RESTART_WINDOW_S] + [now]
            if len(ends[name]) > _RESTARTS_ALLOWED:
                raise UnavailableError(
                    f"{name} ended {len(ends[name])} times within {_RESTART_WINDOW_S:.0f} s; {process.death()}"
                )
            announce(name, "restarting")
            self._replace(process)

    def request_stop(self) -> None:
        """Makes `start` and `watch` end; callable from a signal handler."""
        self._news.put(None)

    def stop(self, announce: Announce) -> None:
        """Stops everything, last stage first; the processes of a stage drain side by side."""
        for stage in reversed(self._stages):
            for process in stage:
                announce(process.spec.name, "stopping")
                process.terminate()
            for process in stage:
                process.stop()
        self._stages.clear()

    def _begin(self, spec: ProcessSpec) -> Process:
        return Process(spec, self._log_folder, self._sink, self._news.put)

    def _replace(self, ended: Process) -> None:
        for stage in self._stages:
            if ended in stage:
                stage[stage.index(ended)] = self._begin(ended.spec)

    def _wait_until_ready(self, process: Process) -> None:
        deadline = time.monotonic() + _READY_S
        while True:
            ready = process.spec.ready is None or process.spec.ready(process.pid)
            self._fail_on_news(timeout_s=0.0 if ready else _PROBE_PAUSE_S)
            if ready:
                return
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{process.spec.name} was not ready within {_READY_S:.0f} s; its last lines "
                    f"(all in {process.log_path}):\n{process.tail()}"
                )

    def _fail_on_news(self, timeout_s: float) -> None:
        """While starting, any end is a failure and any wish to stop is obeyed."""
        try:
            news = self._news.get(timeout=timeout_s)
        except queue.Empty:
            return
        raise KeyboardInterrupt if news is None else news.death()
