"""Leases: at most one worker does a step, and a worker that dies frees it within seconds.

`hold` keeps a lease alive from a thread of its own and tells the step when to stop: its lease was lost, or its run
ended. Writes of a step are atomic and content-addressed, so the rare overlap after a long pause does no harm.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

TTL_S = 15.0
BEAT_S = 1.0


class LeaseStore(Protocol):
    """Where leases live. A name has at most one owner; an entry goes away by itself after its time."""

    def acquire(self, name: str, owner: str, ttl_s: float) -> bool:
        """True when nobody held it and `owner` does now."""

    def renew(self, name: str, owner: str, ttl_s: float) -> bool:
        """False when `owner` does not hold it any more."""

    def release(self, name: str, owner: str) -> None:
        """Frees it when `owner` holds it."""

    def holder(self, name: str) -> str:
        """The owner, or "" when it is free."""


class InMemoryLeaseStore:
    """A store for tests and single-process use."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` in seconds."""
        self._clock = clock
        self._held: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def acquire(self, name: str, owner: str, ttl_s: float) -> bool:
        """See `LeaseStore`."""
        with self._lock:
            if self._owner(name):
                return False
            self._held[name] = (owner, self._clock() + ttl_s)
            return True

    def renew(self, name: str, owner: str, ttl_s: float) -> bool:
        """See `LeaseStore`."""
        with self._lock:
            if self._owner(name) != owner:
                return False
            self._held[name] = (owner, self._clock() + ttl_s)
            return True

    def release(self, name: str, owner: str) -> None:
        """See `LeaseStore`."""
        with self._lock:
            if self._owner(name) == owner:
                del self._held[name]

    def holder(self, name: str) -> str:
        """See `LeaseStore`."""
        with self._lock:
            return self._owner(name)

    def _owner(self, name: str) -> str:
        owner, until = self._held.get(name, ("", 0.0))
        return owner if self._clock() < until else ""


class StepStopped(Exception):  # noqa: N818 - not an error: the step was told to stop, and did
    """The step must end now and write nothing more."""


class Lease:
    """A lease held by this process. Steps call `check` between pieces of work, or wait on `stopped`."""

    def __init__(self) -> None:
        """Held."""
        self.stopped = threading.Event()
        self.reason = ""

    def stop(self, reason: str) -> None:
        """Tells the step to stop; the first reason stays."""
        if not self.stopped.is_set():
            self.reason = reason
            self.stopped.set()

    def check(self) -> None:
        """StepStopped when the step has been told to stop."""
        if self.stopped.is_set():
            raise StepStopped(self.reason)


@contextmanager
def hold(
    store: LeaseStore,
    name: str,
    *,
    ended: Callable[[], bool],
    ttl_s: float = TTL_S,
    beat_s: float = BEAT_S,
) -> Iterator[Lease | None]:
    """Holds a lease inside the block; gives None when somebody else has it.

    Every `beat_s` a thread renews it and asks `ended` whether the run is over. While the store does not answer the
    lease counts as held until its time is up on our own clock, then as lost.
    """
    owner = uuid.uuid4().hex
    if not store.acquire(name, owner, ttl_s):
        yield None
        return
    lease, done = Lease(), threading.Event()
    thread = threading.Thread(
        target=_keep, args=(store, name, owner, ended, ttl_s, beat_s, lease, done), name="lease", daemon=True
    )
    thread.start()
    try:
        yield lease
    finally:
        done.set()
        thread.join(timeout=5)
        store.release(name, owner)


def _keep(
    store: LeaseStore,
    name: str,
    owner: str,
    ended: Callable[[], bool],
    ttl_s: float,
    beat_s: float,
    lease: Lease,
    done: threading.Event,
) -> None:
    renewed = time.monotonic()
    while not done.wait(beat_s) and not lease.stopped.is_set():
        try:
            began = time.monotonic()
            if not store.renew(name, owner, ttl_s):
                lease.stop("its lease was lost to another worker")
            renewed = began
            if ended():
                lease.stop("the run has ended")
        except Exception:
            # The store may be restarting; what counts is whether our own time is up.
            if time.monotonic() - renewed >= ttl_s - beat_s:
                lease.stop("its lease could not be renewed: the state server does not answer")
