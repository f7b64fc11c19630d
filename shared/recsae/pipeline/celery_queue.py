"""A `TaskQueue` on Celery: tasks go out by name, so a sender never imports the worker."""

from __future__ import annotations

from celery import Celery
from kombu.exceptions import OperationalError

from recsae.errors import UnavailableError
from recsae.pipeline.contracts import Task, queue_of, task_name, to_payload
from recsae.store.urls import readable_url


class CeleryTaskQueue:
    """Sends tasks by name through a Celery app; the worker's code is not imported."""

    def __init__(self, app: Celery) -> None:
        """`app` needs a broker and nothing else."""
        self._app = app

    @classmethod
    def connect(cls, bus_url: str) -> CeleryTaskQueue:
        """A queue on the broker at `bus_url`, e.g. "redis://127.0.0.1:6391/0"; connects on the first send."""
        app = Celery("recsae-sender", broker=readable_url(bus_url), set_as_current=False)
        app.conf.update(
            task_ignore_result=True,
            broker_transport_options={"socket_timeout": 5.0, "socket_connect_timeout": 2.0},
        )
        return cls(app)

    def enqueue(self, task: Task, delay_s: float = 0.0) -> None:
        """See `TaskQueue`."""
        try:
            self._app.send_task(
                task_name(task),
                kwargs={"payload": to_payload(task)},
                queue=queue_of(task),
                countdown=delay_s or None,
                retry=True,
                retry_policy={"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2},
                ignore_result=True,
            )
        except OperationalError as error:
            raise UnavailableError(f"the task broker does not answer ({error}); start it or check its URL") from error

    def close(self) -> None:
        """Closes the connections to the broker."""
        self._app.close()
