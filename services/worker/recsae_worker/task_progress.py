"""A step's reports as Celery progress: state PROGRESS of its task, for tools that know Celery and not our run records.

The run record is the truth, so nothing here may delay or fail a step: while the bus does not answer, reports are left
out. They expire soon (`app`), and the task's entry goes away with the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

import structlog

from recsae.pipeline.steps import StepReport

STATE = "PROGRESS"
# Asking a bus that is down costs up to its timeouts (`app`); once in this time is under 2 % of a step.
_PAUSE_S = 60.0

_log = structlog.get_logger(__name__)


class ProgressTask(Protocol):
    """What is needed of a bound Celery task."""

    backend: Any
    request: Any

    def update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None) -> None:
        """Stores a state in the result backend."""


class TaskProgress:
    """Publishes reports of the task at hand. Use it as the listener of one step, inside `with`."""

    def __init__(self, task: ProgressTask, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` in seconds."""
        self._task, self._clock = task, clock
        self._silent_until = float("-inf")
        self._published = False

    def __call__(self, report: StepReport) -> None:
        """Publishes one report, or nothing while the bus does not answer."""
        self._try(lambda: self._task.update_state(state=STATE, meta=meta_of(report)))

    def __enter__(self) -> TaskProgress:
        return self

    def __exit__(self, *_: object) -> None:
        """Takes the entry away: a step that ended is not in progress."""
        if self._published:
            self._try(lambda: self._task.backend.forget(self._task.request.id))

    def _try(self, send: Callable[[], object]) -> None:
        if self._clock() < self._silent_until:
            return
        try:
            send()
            self._published = True
        except Exception as error:  # whatever the backend's client raises: progress is never worth a step
            _log.warning("task_progress_lost", kind=type(error).__name__)
            self._silent_until = self._clock() + _PAUSE_S


def meta_of(report: StepReport) -> dict[str, Any]:
    """What Celery's tools show: run, stage and shard, detail, the stage's done share and the measures, flat."""
    return {**asdict(report.step), "detail": report.detail, "progress": report.progress, **report.measures}
