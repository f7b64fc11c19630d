"""What travels between the interpreter, beat and the workers: task names, queues and versioned payloads.

Senders and workers share this module and nothing else. Not here: what a task does (`recsae_worker.tasks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

from recsae.errors import InvalidRequestError

PAYLOAD_VERSION = 1

ADVANCE = "recsae.pipeline.advance"
STEP = "recsae.pipeline.step"
SWEEP = "recsae.pipeline.sweep"
COMPARE = "recsae.drift.compare"
ARCHIVE = "recsae.store.archive"

COLLECT_QUEUE = "collect"
TRAIN_QUEUE = "train"
CONCEPTS_QUEUE = "concepts"
DRIFT_QUEUE = "drift"
QUEUES = (COLLECT_QUEUE, TRAIN_QUEUE, CONCEPTS_QUEUE, DRIFT_QUEUE)

_QUEUE_BY_STAGE = {
    "collect": COLLECT_QUEUE,
    "control_collect": COLLECT_QUEUE,
    "train": TRAIN_QUEUE,
    "control_train": TRAIN_QUEUE,
    "sweep": TRAIN_QUEUE,
}


@dataclass(frozen=True)
class AdvanceRun:
    """Look at a run and enqueue what is missing. Sending it twice is harmless."""

    run_id: str


@dataclass(frozen=True)
class RunStep:
    """Do one step of a run: one shard of one stage. Doing it twice is harmless."""

    run_id: str
    stage: str
    shard: str


@dataclass(frozen=True)
class SweepRuns:
    """Advance every run that has not ended."""


@dataclass(frozen=True)
class CompareDrift:
    """Compare live traffic with the reference, for one model or (empty) for every one with a production triple."""

    model: str = ""


@dataclass(frozen=True)
class ArchiveAudit:
    """Move audit events that need not stay in Redis to the artifact store. Sending it twice is harmless."""


Task = AdvanceRun | RunStep | SweepRuns | CompareDrift | ArchiveAudit
T = TypeVar("T", AdvanceRun, RunStep, SweepRuns, CompareDrift, ArchiveAudit)

_NAMES: dict[type[Task], str] = {
    AdvanceRun: ADVANCE,
    RunStep: STEP,
    SweepRuns: SWEEP,
    CompareDrift: COMPARE,
    ArchiveAudit: ARCHIVE,
}


def task_name(task: Task) -> str:
    """The Celery name of a task."""
    return _NAMES[type(task)]


def queue_of(task: Task) -> str:
    """The queue a task waits in."""
    match task:
        case RunStep(stage=stage):
            return _QUEUE_BY_STAGE.get(stage, CONCEPTS_QUEUE)
        case CompareDrift() | ArchiveAudit():
            return DRIFT_QUEUE
        case _:
            return COLLECT_QUEUE


def to_payload(task: Task) -> dict[str, Any]:
    """The task's fields and the payload version, as JSON types."""
    return {"payload_version": PAYLOAD_VERSION, **asdict(task)}


def from_payload(kind: type[T], payload: Mapping[str, Any]) -> T:
    """The task back; InvalidRequestError when another release sent a form this one does not read."""
    fields = dict(payload)
    version = fields.pop("payload_version", None)
    if version != PAYLOAD_VERSION:
        raise InvalidRequestError(
            f"payload of {_NAMES[kind]} has version {version!r}, this worker reads {PAYLOAD_VERSION}; "
            "run workers and senders of one release"
        )
    try:
        return kind(**fields)
    except TypeError as error:
        raise InvalidRequestError(f"payload of {_NAMES[kind]} does not fit: {error}") from error


class TaskQueue(Protocol):
    """Where tasks are sent."""

    def enqueue(self, task: Task, delay_s: float = 0.0) -> None:
        """Hands the task over; UnavailableError when the broker does not answer."""


class InMemoryTaskQueue:
    """Collects tasks, for tests and single-process use."""

    def __init__(self) -> None:
        """Starts empty."""
        self.tasks: list[Task] = []

    def enqueue(self, task: Task, delay_s: float = 0.0) -> None:
        """See `TaskQueue`; the delay is ignored."""
        self.tasks.append(task)
