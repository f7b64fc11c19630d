"""Worker processes of all contenders, of which one works at a time. Not here: what is asked of them (`race`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.contenders.contract import Task
from benchmarks.contenders.roster import Entry
from benchmarks.scores import Quality

ROOT = Path(__file__).parents[1]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
_THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class ContenderError(Exception):
    """A contender could not do what it was asked."""


def environment(threads: int) -> dict[str, str]:
    """Of a process whose numerical libraries use `threads` threads."""
    return {**os.environ, **dict.fromkeys(_THREAD_SETTINGS, str(threads)), "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Times:
    """Of each step: `seconds` by the clock, `cpu_seconds` that the process worked, over all its threads."""

    seconds: list[float]
    cpu_seconds: list[float]


class Worker:
    """A process that holds one contender."""

    def __init__(self, entry: Entry, threads: int, log: Path) -> None:
        """Starts it; the contender's own output goes to the file `log`."""
        self.entry, self._log = entry, log
        python = sys.executable if entry.environment == "own" else str(PEERS_PYTHON)
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.worker"],
                cwd=ROOT,
                env=environment(threads),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def load(self, task: Task, stream: Path, held_out: Path) -> str:
        """Makes the contender for `task`; its flags."""
        answer = self._ask(
            "load", factory=self.entry.factory, task=asdict(task), stream=str(stream), held_out=str(held_out)
        )
        return str(answer["flags"])

    def step(self, first: int, count: int, batch: int) -> Times:
        """Trains on batches `first`, `first` + 1, ... of the stream."""
        return Times(**self._ask("step", first=first, count=count, batch=batch))

    def score(self) -> Quality:
        """On the held-out rows."""
        return Quality(**self._ask("score"))

    def _ask(self, do: str, **what: Any) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": f"its process ended; see {self._log}"}
        if "error" in answer:
            raise ContenderError(f"{self.entry.name}: {answer['error']}".split("\n")[0])
        return answer
