"""Tells a replica that something changed: it blocks on the event stream and polls the revision as a backstop.

A stream and not pub/sub, which loses what is said while a connection is down. The receiver re-reads everything it
needs, so a missed, repeated or late call does no harm.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
import structlog

from recsae.store.events import EVENTS, REVISION
from recsae.store.redis import connect

_log = structlog.get_logger(__name__)

# A read of one key: cheap enough to notice within half a second what the stream did not say, and to stop as fast.
POLL_S = 0.5
_LONGEST_BACKOFF_S = 2.0
_WAKE_S = 0.05


class StateWatcher:
    """Calls `on_change` once at the start, after every change and after every gap, from a thread of its own."""

    def __init__(self, url: str, on_change: Callable[[], None], *, poll_s: float = POLL_S) -> None:
        """`on_change` may raise; it is then called again with the next change or poll."""
        self._client: Any = connect(url, longest_block_s=poll_s)
        self._on_change = on_change
        self._poll_ms = int(poll_s * 1000)
        self._stop = threading.Event()
        self._failures = 0
        self._answered_at = -math.inf
        self._thread = threading.Thread(target=self._run, name="recsae-state-watcher", daemon=True)

    @property
    def age_s(self) -> float:
        """Seconds since the server last answered; infinite before it first did."""
        return time.monotonic() - self._answered_at

    def start(self) -> StateWatcher:
        """Starts watching; returns itself."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Ends the thread, which would wait for the stream until its block is over: its connection is taken from it."""
        self._stop.set()
        deadline = time.monotonic() + self._poll_ms / 1000 + 5
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._client.connection_pool.disconnect()  # again, where it was just about to ask
            self._thread.join(timeout=_WAKE_S)
        self._client.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch()
            except Exception as error:
                if self._stop.is_set():  # its connection was closed under it
                    return
                lost = isinstance(error, redis.ConnectionError | redis.TimeoutError)
                if self._failures == 0:
                    _log.warning("state_server_lost" if lost else "state_change_failed", exc_info=error)
                self._failures += 1
                self._stop.wait(random.uniform(0.05, min(_LONGEST_BACKOFF_S, 0.1 * 2 ** min(self._failures, 8))))

    def _watch(self) -> None:
        """Reads everything once, then again after each change, until told to stop or the connection breaks."""
        # The position is taken before reading, so what happens in between is reported again and not lost.
        newest = self._client.xrevrange(EVENTS, count=1)
        position = newest[0][0] if newest else "0-0"
        seen = self._revision()
        self._on_change()
        self._failures = 0
        while not self._stop.is_set():
            answer = self._client.xread({EVENTS: position}, count=1_000, block=self._poll_ms)
            revision = self._revision()
            if answer:
                position = answer[0][1][-1][0]
            if answer or revision != seen:
                self._on_change()
                seen = revision

    def _revision(self) -> int:
        revision = int(self._client.get(REVISION) or 0)
        self._answered_at = time.monotonic()
        return revision
