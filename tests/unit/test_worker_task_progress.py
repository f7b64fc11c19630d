"""Progress of a step as Celery's: published, taken away at the end, and never worth a step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from recsae.pipeline.contracts import RunStep
from recsae.pipeline.steps import StepReport
from recsae_worker.app import backend_url
from recsae_worker.task_progress import TaskProgress

REPORT = StepReport(RunStep("r-1", "train", "all"), "step 5 of 10", 0.5, {"fvu": 0.25, "eta_s": 3.0})


class Task:
    """A bound task with a backend of a dictionary; `down` makes both fail as a lost server does."""

    def __init__(self) -> None:
        self.states: dict[str, Any] = {}
        self.request, self.backend = SimpleNamespace(id="task-1"), self
        self.down, self.asked = False, 0

    def update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None) -> None:
        self._ask()
        self.states[task_id or self.request.id] = (state, meta)

    def forget(self, task_id: str) -> None:
        self._ask()
        del self.states[task_id]

    def _ask(self) -> None:
        self.asked += 1
        if self.down:
            raise ConnectionError("refused")


def test_a_report_is_the_state_of_its_task_until_the_step_ends() -> None:
    task = Task()
    with TaskProgress(task) as progress:
        progress(REPORT)
        assert task.states["task-1"] == (
            "PROGRESS",
            {
                **{"run_id": "r-1", "stage": "train", "shard": "all", "detail": "step 5 of 10", "progress": 0.5},
                **{"fvu": 0.25, "eta_s": 3.0},
            },
        )
    assert task.states == {}


def test_a_step_that_reported_nothing_leaves_the_bus_alone() -> None:
    task = Task()
    with TaskProgress(task):
        pass
    assert task.asked == 0


def test_while_the_bus_is_down_it_is_asked_once_a_minute_and_the_step_goes_on() -> None:
    task, now = Task(), [0.0]
    task.down = True
    with structlog.testing.capture_logs() as logs, TaskProgress(task, clock=lambda: now[0]) as progress:
        for second in range(150):
            now[0] = float(second)
            progress(REPORT)
        assert task.asked == 3
        now[0], task.down = 200.0, False
        progress(REPORT)
        assert task.states.keys() == {"task-1"}
    assert [entry["event"] for entry in logs] == ["task_progress_lost"] * 3


@pytest.mark.parametrize(
    ("bus", "backend"),
    [
        ("redis://bus:6391/0", "redis://bus:6391/0"),
        ("rediss://bus:6391/0", "rediss://bus:6391/0?ssl_cert_reqs=required"),
        ("rediss://bus/0?timeout=1", "rediss://bus/0?timeout=1&ssl_cert_reqs=required"),
        ("rediss://bus/0?ssl_cert_reqs=none", "rediss://bus/0?ssl_cert_reqs=none"),
    ],
)
def test_a_bus_behind_tls_is_a_backend_that_checks_certificates(bus: str, backend: str) -> None:
    assert backend_url(bus) == backend
