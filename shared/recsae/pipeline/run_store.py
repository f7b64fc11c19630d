"""Keeping run records: the protocol, the in-memory store, and the use cases that change a record safely.

Every write names the revision it was made from, so two workers never overwrite each other's change.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from recsae.errors import ConflictError, InvalidRequestError, NotFoundError
from recsae.pipeline.runs import MAX_REASON, Run, RunConfig, RunState, ended, new_run

MAX_LISTED = 500
MAX_KEY = 64
_MAX_TRIES = 100

Clock = Callable[[], float]


class RunStore(Protocol):
    """Where run records live."""

    def create(self, run: Run, idempotency_key: str = "") -> Run:
        """Stores a new run as revision 1; with a key seen before, returns the run first stored with it."""

    def get(self, run_id: str) -> Run:
        """The record; NotFoundError when there is none."""

    def replace(self, run: Run) -> Run:
        """Stores `run` when the stored revision is still `run.revision`; returns it one revision higher.

        ConflictError when somebody else changed it first, NotFoundError when it is gone.
        """

    def list(self, model: str = "", limit: int = 20, *, active_only: bool = False) -> list[Run]:
        """Newest first; of one model when named; only runs that have not ended when asked."""


class InMemoryRunStore:
    """A store for tests and single-process use."""

    def __init__(self) -> None:
        """Starts empty."""
        self._runs: dict[str, Run] = {}
        self._by_key: dict[str, str] = {}
        self._lock = threading.Lock()

    def create(self, run: Run, idempotency_key: str = "") -> Run:
        """See `RunStore`."""
        with self._lock:
            if idempotency_key and idempotency_key in self._by_key:
                return self._runs[self._by_key[idempotency_key]]
            if run.id in self._runs:
                raise ConflictError(f"run {run.id} exists already; start again for a new id")
            stored = replace(run, revision=1)
            self._runs[run.id] = stored
            if idempotency_key:
                self._by_key[idempotency_key] = run.id
            return stored

    def get(self, run_id: str) -> Run:
        """See `RunStore`."""
        with self._lock:
            if run_id not in self._runs:
                raise unknown_run(run_id)
            return self._runs[run_id]

    def replace(self, run: Run) -> Run:
        """See `RunStore`."""
        with self._lock:
            if run.id not in self._runs:
                raise unknown_run(run.id)
            if self._runs[run.id].revision != run.revision:
                raise changed_meanwhile(run, self._runs[run.id].revision)
            stored = replace(run, revision=run.revision + 1)
            self._runs[run.id] = stored
            return stored

    def list(self, model: str = "", limit: int = 20, *, active_only: bool = False) -> list[Run]:
        """See `RunStore`."""
        with self._lock:
            newest = sorted(self._runs.values(), key=lambda run: (run.created_at, run.id), reverse=True)
        wanted = [r for r in newest if model in ("", r.config.model) and not (active_only and r.state.ended)]
        return wanted[:limit]


def unknown_run(run_id: str) -> NotFoundError:
    """The error of a run id nobody knows."""
    return NotFoundError(f"no run {run_id!r}; list the runs there are with ListRuns or `recsae runs`")


def changed_meanwhile(run: Run, stored_revision: int) -> ConflictError:
    """The error of a write made from an old revision."""
    return ConflictError(f"run {run.id} is at revision {stored_revision}, not {run.revision}; read it again and retry")


def update(store: RunStore, run_id: str, change: Callable[[Run], Run], clock: Clock = time.time) -> Run:
    """Applies `change` to the newest record, again while others get in between; returns what is stored.

    A change that returns the very run it was given writes nothing. NotFoundError when there is no such run.
    """
    for _ in range(_MAX_TRIES):
        run = store.get(run_id)
        changed = change(run)
        if changed is run:
            return run
        try:
            return store.replace(replace(changed, updated_at=clock()))
        except ConflictError:
            continue
    raise ConflictError(f"run {run_id} changed {_MAX_TRIES} times while it was being changed; retry later")


def start_refresh(store: RunStore, config: RunConfig, idempotency_key: str = "", clock: Clock = time.time) -> Run:
    """Records a queued run; `advance` sets it going. With a key seen before: the run that key first made.

    InvalidRequestError for a configuration that can never work.
    """
    if len(idempotency_key) > MAX_KEY:
        raise InvalidRequestError(f"idempotency_key has {len(idempotency_key)} characters; send at most {MAX_KEY}")
    return store.create(new_run(config, clock()), idempotency_key)


def cancel(store: RunStore, run_id: str, reason: str, clock: Clock = time.time) -> Run:
    """Ends a run that is queued or running; its tasks notice within seconds. An ended run stays as it is."""
    if not 1 <= len(reason) <= MAX_REASON:
        raise InvalidRequestError(f"reason has {len(reason)} characters; give 1 to {MAX_REASON}")
    return update(store, run_id, lambda run: ended(run, RunState.CANCELLED, reason, clock()), clock)
