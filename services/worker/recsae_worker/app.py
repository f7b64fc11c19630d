"""The Celery app: queues, delivery rules and beat's schedule.

Imported by the parent of a prefork pool, so nothing here or below it imports numeric code: a fork of a process that
ran torch or numba hangs. Tasks import what they need when they run, in the child.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from celery import Celery, signals
from kombu.entity import Queue

from recsae.pipeline.contracts import (
    ARCHIVE,
    COMPARE,
    DRIFT_QUEUE,
    QUEUES,
    SWEEP,
    ArchiveAudit,
    CompareDrift,
    SweepRuns,
    queue_of,
    to_payload,
)
from recsae.rpc.settings import load_settings
from recsae_worker.settings import WorkerSettings

# A message of a killed worker comes back after this and is dropped if the step is done or held by then; the sweep
# brings the step itself back sooner, so a task longer than this only costs an empty delivery.
_VISIBILITY_TIMEOUT_S = 300
# Results are not kept; the backend holds the progress of tasks at work, which is written anew every second.
_PROGRESS_TTL_S = 60


def build_app(settings: WorkerSettings) -> Celery:
    """The app for these settings; connects to nothing."""
    celery = Celery(
        "recsae", broker=settings.bus_url, backend=backend_url(settings.bus_url), include=["recsae_worker.tasks"]
    )
    celery.conf.update(
        task_queues=[Queue(name) for name in QUEUES],  # type: ignore[no-untyped-call]
        task_default_queue=QUEUES[0],
        task_create_missing_queues=False,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        result_expires=_PROGRESS_TTL_S,
        result_backend_transport_options={"retry_policy": {"max_retries": 0}},
        redis_socket_timeout=1.0,
        redis_socket_connect_timeout=0.5,
        worker_prefetch_multiplier=1,
        worker_soft_shutdown_timeout=3.0,
        worker_enable_soft_shutdown_on_idle=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10.0,
            "socket_connect_timeout": 5.0,
            "retry_on_timeout": True,
        },
        task_serializer="json",
        accept_content=["json"],
        timezone="UTC",
        beat_schedule=_schedule(settings),
        # The default one keeps its schedule in a shelve file, which is a pickle; ours needs no memory of its last run.
        beat_scheduler="celery.beat:Scheduler",
        beat_max_loop_interval=5,
    )
    return celery


def backend_url(bus_url: str) -> str:
    """The bus as Celery's result backend, which, unlike its broker, wants to be told to check certificates."""
    if not bus_url.startswith("rediss://") or "ssl_cert_reqs=" in bus_url:
        return bus_url
    return f"{bus_url}{'&' if '?' in bus_url else '?'}ssl_cert_reqs=required"


def _schedule(settings: WorkerSettings) -> dict[str, Any]:
    """Periodic tasks expire when the next one is due: a busy worker finds one of each, not an hour of them."""
    return {
        "sweep-runs": {
            "task": SWEEP,
            "schedule": settings.sweep_every_s,
            "kwargs": {"payload": to_payload(SweepRuns())},
            "options": {"queue": queue_of(SweepRuns()), "expires": settings.sweep_every_s, "ignore_result": True},
        },
        "compare-drift": {
            "task": COMPARE,
            "schedule": settings.drift_every_s,
            "kwargs": {"payload": to_payload(CompareDrift())},
            "options": {"queue": DRIFT_QUEUE, "expires": settings.drift_every_s, "ignore_result": True},
        },
        "archive-audit": {
            "task": ARCHIVE,
            "schedule": settings.audit_every_s,
            "kwargs": {"payload": to_payload(ArchiveAudit())},
            "options": {
                "queue": queue_of(ArchiveAudit()),
                "expires": settings.audit_every_s,
                "ignore_result": True,
            },
        },
    }


def _configure_logging(**_: Any) -> None:
    from recsae.telemetry.logging import configure_logging

    configure_logging("worker", level=settings.log_level, format=settings.log_format)


def _stop_soon_on_sigterm(**_: Any) -> None:
    """A stopped worker gives its task back within the soft timeout; the step goes on from its last checkpoint.

    SIGTERM alone would wait for the task, which may be hours of training. Celery's own switch for this
    (REMAP_SIGTERM) is read before this module is.
    """
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGQUIT))


signals.setup_logging.connect(_configure_logging, weak=False)
signals.worker_ready.connect(_stop_soon_on_sigterm, weak=False)
settings = load_settings(WorkerSettings)
app = build_app(settings)
