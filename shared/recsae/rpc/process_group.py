"""Several processes that serve one port together: started, watched, started again when they die, drained at the end.

Each is a new interpreter (never a fork: gRPC and onnxruntime have threads), with its own models and plans, and shares
nothing with the others but the port. Not here: the port (`shared_port`), a process from inside (`group_member`).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from recsae.errors import FailedPreconditionError
from recsae.rpc.group_member import METRICS, READY

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class GroupLimits:
    """How patient a group is; seconds."""

    most_tries: int = 5
    """Starts in a row that may fail of a process that has served before."""
    first_pause_s: float = 0.1
    longest_pause_s: float = 30.0
    settled_s: float = 30.0
    """A process that served this long has the shortest pause again when it dies."""
    metrics_s: float = 2.0
    stop_s: float = 40.0


class ProcessGroup:
    """Keeps `len(environments)` processes of one command running."""

    def __init__(
        self,
        command: Sequence[str],
        environments: Sequence[Mapping[str, str]],
        limits: GroupLimits,
        on_failure: Callable[[], object],
    ) -> None:
        """`environments` are whole ones, one a process; `on_failure` is called once, when the group gives up."""
        self._limits, self._on_failure = limits, on_failure
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._started = False
        self._scrape = threading.Lock()
        self.failure = ""
        """Why the group gave up; empty as long as it has not."""
        self._slots = [_Slot(number, command, one, self) for number, one in enumerate(environments)]

    @property
    def limits(self) -> GroupLimits:
        """How patient it is."""
        return self._limits

    def start(self) -> None:
        """Starts all and returns when each serves; FailedPreconditionError when one ends before."""
        for slot in self._slots:
            slot.thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self.failure or all(slot.serving for slot in self._slots))
            self._started = not self.failure
        if self.failure:
            self.stop()
            raise FailedPreconditionError(self.failure)

    def stop(self) -> None:
        """Lets every process drain and waits for its end; one that takes too long is killed."""
        self._stopping.set()
        for slot in self._slots:
            slot.dismiss()
        deadline = time.monotonic() + self._limits.stop_s
        for slot in self._slots:
            slot.join(max(deadline - time.monotonic(), 0))

    def pids(self) -> list[int]:
        """Ids of the processes that run now."""
        return [slot.pid for slot in self._slots if slot.pid]

    def expositions(self) -> list[str]:
        """The metrics of each process, in Prometheus' text format; empty of one that does not answer in time."""
        with self._scrape:
            asked = [slot.ask() for slot in self._slots]
            deadline = time.monotonic() + self._limits.metrics_s
            return [
                slot.answer(max(deadline - time.monotonic(), 0)) if was_asked else ""
                for slot, was_asked in zip(self._slots, asked, strict=True)
            ]

    def restarts(self) -> list[int]:
        """How often each process was started again."""
        return [slot.restarts for slot in self._slots]

    def note(self) -> None:
        """For slots: something changed."""
        with self._changed:
            self._changed.notify_all()

    def give_up(self, reason: str) -> None:
        """For slots: the group cannot go on."""
        with self._changed:
            if self.failure or self._stopping.is_set():
                return
            self.failure = reason
            self._changed.notify_all()
            tell = self._started
        _log.error("process_group_failed", reason=reason)
        if tell:
            self._on_failure()

    def pause(self, seconds: float) -> bool:
        """For slots: waits; True when the group stops meanwhile."""
        return self._stopping.wait(seconds)


class _Slot:
    """The place of one process in the group: the thread that starts it, hears it and starts it again."""

    def __init__(
        self, number: int, command: Sequence[str], environment: Mapping[str, str], group: ProcessGroup
    ) -> None:
        self._number, self._command, self._environment, self._group = number, command, environment, group
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._dismissed = False
        self._answers = threading.Condition()
        self._asked = False
        self._text: str | None = None
        self.serving = False
        self.restarts = 0
        self.thread = threading.Thread(target=self._keep, name=f"recsae-process-{number}", daemon=True)

    @property
    def pid(self) -> int:
        process = self._process
        return process.pid if process is not None and process.returncode is None else 0

    def _keep(self) -> None:
        limits, served, failed, hasty = self._group.limits, False, 0, 0
        while not self._dismissed:
            status, served_s = self._run()
            if self._dismissed:
                return
            served = served or served_s > 0
            failed = 0 if served_s else failed + 1
            hasty = 0 if served_s > limits.settled_s else hasty + 1
            _log.warning("process_ended", process=self._number, status=status, served_s=round(served_s, 1))
            if not served or failed >= limits.most_tries:
                times = f"{failed} times in a row" if served else "at the start"
                self._group.give_up(
                    f"process {self._number} ended with status {status} before it served, {times}; its own log lines "
                    "above say why"
                )
                return
            if self._group.pause(min(limits.first_pause_s * 2 ** max(hasty - 1, 0), limits.longest_pause_s)):
                return
            self.restarts += 1

    def _run(self) -> tuple[int | str, float]:
        """Runs the process to its end: its exit status, and for how long it served."""
        with self._lock:
            if self._dismissed:
                return 0, 0.0
            try:
                # A session of its own: Ctrl-C in a terminal reaches the parent alone, which then lets it drain.
                self._process = subprocess.Popen(
                    self._command,
                    env=dict(self._environment),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    encoding="utf-8",
                    start_new_session=True,
                )
            except OSError as error:
                return error.strerror or str(error), 0.0
        process = self._process
        assert process.stdout is not None
        since = 0.0
        for line in process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue  # cut off by `kill -9`
            if READY in said:
                since, self.serving = time.monotonic(), True
                _log.info("process_ready", process=self._number, pid=process.pid)
                self._group.note()
            if METRICS in said:
                self._hear(said[METRICS])
        status = process.wait()
        process.stdout.close()
        self._close_input()
        self.serving = False
        self._hear("")
        return status, time.monotonic() - since if since else 0.0

    def ask(self) -> bool:
        """Asks for the metrics, unless it has not answered the last time."""
        with self._answers, self._lock:
            if not self.serving or self._asked or self._process is None or self._process.stdin is None:
                return False
            self._asked, self._text = True, None
            try:
                self._process.stdin.write(METRICS + "\n")
                self._process.stdin.flush()
            except (OSError, ValueError):
                self._asked = False
            return self._asked

    def answer(self, seconds: float) -> str:
        """What it answered, empty when it did not in time."""
        with self._answers:
            self._answers.wait_for(lambda: self._text is not None, seconds)
            return self._text or ""

    def _hear(self, text: str) -> None:
        with self._answers:
            self._asked, self._text = False, text
            self._answers.notify_all()

    def dismiss(self) -> None:
        """Closes its standard input, on which it drains and ends."""
        self._dismissed = True
        self._close_input()

    def _close_input(self) -> None:
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()

    def join(self, seconds: float) -> None:
        """Waits for its end; kills it when that takes longer."""
        self.thread.join(seconds)
        if self.thread.is_alive() and self._process is not None:
            _log.error("process_killed", process=self._number, waited_s=round(self._group.limits.stop_s, 1))
            self._process.kill()
            self.thread.join()
