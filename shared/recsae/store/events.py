"""The audit trail: every acknowledged change of a policy or a channel, in the order it took effect.

A change and its event are one write (see the stores that record them), and each raises one counter, the *revision*:
what plans are compiled from is always "everything up to revision n". Not here: who may change what.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

import redis

from recsae.store.redis import translated

EVENTS = "recsae:events"
REVISION = "recsae:revision"
_SCAN = 1_000

# Begins every script that changes state. KEYS[1] = events, KEYS[2] = revision; ARGV[1..6] = actor, action, subject,
# reason, request id, time. The script's own keys and arguments follow.
RECORD_LUA = """
local function record(before, after)
  local revision = redis.call('INCR', KEYS[2])
  redis.call('XADD', KEYS[1], '*', 'revision', revision, 'actor', ARGV[1], 'action', ARGV[2], 'subject', ARGV[3],
    'reason', ARGV[4], 'request_id', ARGV[5], 'at', ARGV[6], 'before', before or '', 'after', after or '')
  return revision
end
"""


@dataclass(frozen=True)
class Change:
    """Who changes what, why and when: what the event says besides before and after. `at` = seconds since the epoch."""

    actor: str
    action: str
    reason: str
    request_id: str
    at: float


@dataclass(frozen=True)
class AuditEvent:
    """One acknowledged change; `id` sorts, `before_json` is empty for what is new."""

    id: str
    change: Change
    subject: str
    before_json: str
    after_json: str
    revision: int


class AuditTrail(Protocol):
    """Reads the trail."""

    def events(self, subject: str = "", limit: int = 100) -> list[AuditEvent]:
        """The newest events, newest first; of one subject when named."""

    def revision(self) -> int:
        """Number of changes so far."""


class InMemoryTrail:
    """A trail for tests and single-process use; the in-memory stores record into it under its lock."""

    def __init__(self) -> None:
        """Starts empty."""
        self.lock = threading.RLock()
        self._events: list[AuditEvent] = []

    def record(self, change: Change, subject: str, before_json: str, after_json: str) -> int:
        """Adds an event; returns the revision. The caller holds the lock while it writes what the event is about."""
        with self.lock:
            revision = len(self._events) + 1
            self._events.append(AuditEvent(f"{revision:020d}", change, subject, before_json, after_json, revision))
            return revision

    def events(self, subject: str = "", limit: int = 100) -> list[AuditEvent]:
        """See `AuditTrail`."""
        with self.lock:
            wanted = [event for event in reversed(self._events) if subject in ("", event.subject)]
        return wanted[:limit]

    def revision(self) -> int:
        """See `AuditTrail`."""
        with self.lock:
            return len(self._events)


class RedisTrail:
    """A trail in the stream `recsae:events`."""

    def __init__(self, client: redis.Redis) -> None:
        """`client` decodes responses."""
        self._client: Any = client

    def events(self, subject: str = "", limit: int = 100) -> list[AuditEvent]:
        """See `AuditTrail`; reads backwards until enough are found."""
        found: list[AuditEvent] = []
        end = "+"
        with translated("reading the audit trail"):
            while len(found) < limit:
                page = self._client.xrevrange(EVENTS, max=end, min="-", count=_SCAN)
                found += [_event(*entry) for entry in page if subject in ("", entry[1]["subject"])]
                if len(page) < _SCAN:
                    break
                end = f"({page[-1][0]}"
        return found[:limit]

    def revision(self) -> int:
        """See `AuditTrail`."""
        with translated("reading the revision"):
            return int(self._client.get(REVISION) or 0)


def change_arguments(change: Change, subject: str) -> list[str]:
    """The arguments `RECORD_LUA` reads."""
    return [change.actor, change.action, subject, change.reason, change.request_id, repr(change.at)]


def change_now(*, actor: str, action: str, reason: str, request_id: str) -> Change:
    """A change happening now."""
    return Change(actor, action, reason, request_id, time.time())


def _event(event_id: str, fields: dict[str, str]) -> AuditEvent:
    change = Change(fields["actor"], fields["action"], fields["reason"], fields["request_id"], float(fields["at"]))
    return AuditEvent(event_id, change, fields["subject"], fields["before"], fields["after"], int(fields["revision"]))
