"""One contender in a process of its own, told what to do by JSON lines: `python -m benchmarks.worker`.

It runs in the environment that holds its library, reads a request from standard input and writes one answer to standard
output; what libraries print goes to standard error. Requests ("do"): "load" makes a contender, "step" trains and
answers with the seconds each step took and its processor worked, "score" measures its quality. Reading the data is
never inside the clock.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.contenders.contract import Contender, Floats, Task
from benchmarks.scores import quality

Request = dict[str, Any]


class Session:
    """The contender loaded last, and the data it trains on."""

    def __init__(self) -> None:
        self._contender: Contender | None = None

    def answer(self, request: Request) -> dict[str, Any]:
        """Does what `request["do"]` says."""
        actions: dict[str, Callable[[Request], dict[str, Any]]] = {
            "load": self._load,
            "step": self._step,
            "score": self._score,
        }
        return actions[request["do"]](request)

    def _load(self, request: Request) -> dict[str, Any]:
        self._contender = None  # its memory is free before the next one asks for some
        module, _, name = request["factory"].partition(":")
        self._stream: Floats = np.load(request["stream"], mmap_mode="r")
        self._held_out: Floats = np.load(request["held_out"], mmap_mode="r")
        self._contender = getattr(importlib.import_module(module), name)(Task(**request["task"]))
        return {"flags": self._loaded.flags}

    def _step(self, request: Request) -> dict[str, Any]:
        seconds, cpu_seconds = [], []
        for number in range(request["first"], request["first"] + request["count"]):
            batch = self._batch(number, request["batch"])
            begun, worked = time.perf_counter(), time.process_time()
            self._loaded.step(batch)
            seconds.append(time.perf_counter() - begun)
            cpu_seconds.append(time.process_time() - worked)
        return {"seconds": seconds, "cpu_seconds": cpu_seconds}

    def _score(self, request: Request) -> dict[str, Any]:
        return asdict(quality(self._loaded, np.array(self._held_out)))

    def _batch(self, number: int, size: int) -> Floats:
        """Batch `number` of the stream, which begins again at its end; in memory."""
        at = number % (len(self._stream) // size) * size
        return np.array(self._stream[at : at + size])

    @property
    def _loaded(self) -> Contender:
        if self._contender is None:
            raise RuntimeError('ask for "load" first')
        return self._contender


def main() -> None:
    """Answers until its input ends. An exception is an answer too."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session = Session()
    for line in sys.stdin:
        try:
            answer = session.answer(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
