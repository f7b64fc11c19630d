"""The audit trail: every acknowledged change of a policy or a channel, in the order it took effect.

A change and its event are one write (see the stores that record them), and each raises one counter, the *revision*:
what plans are compiled from is always "everything up to revision n". Not here: who may change what, and what became
of events that were archived (`recsae.store.audit_archive`).

In Redis: the stream `recsae:events`, the counter `recsae:revision`, and per subject `recsae:events:of:<subject>`
(sorted set: ids of its events by their revision), so that those of one policy are found without reading all others.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

import redis

from recsae.errors import InvalidRequestError
from recsae.store.redis import translated

EVENTS = "recsae:events"
REVISION = "recsae:revision"
SUBJECTS = f"{EVENTS}:of:"
INDEXED = f"{EVENTS}:indexed"
_PAGE = 200
_ID = re.compile(r"\d{1,20}(-\d{1,20})?")

# Begins every script that changes state. KEYS[1] = events, KEYS[2] = revision; ARGV[1..6] = actor, action, subject,
# reason, request id, time. The script's own keys and arguments follow.
RECORD_LUA = """
local function record(before, after)
  local revision = redis.call('INCR', KEYS[2])
  local id = redis.call('XADD', KEYS[1], '*', 'revision', revision, 'actor', ARGV[1], 'action', ARGV[2],
    'subject', ARGV[3], 'reason', ARGV[4], 'request_id', ARGV[5], 'at', ARGV[6], 'before', before or '',
    'after', after or '')
  redis.call('ZADD', KEYS[1] .. ':of:' .. ARGV[3], revision, id)
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

    def events(self, subject: str = "", limit: int = 100, before_id: str = "") -> list[AuditEvent]:
        """The newest events, newest first; of one subject when named, only those before an event when it is named.

        InvalidRequestError for a `before_id` that is no id of an event.
        """

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

    def events(self, subject: str = "", limit: int = 100, before_id: str = "") -> list[AuditEvent]:
        """See `AuditTrail`."""
        end = position_of(before_id) if before_id else None
        with self.lock:
            wanted = [event for event in reversed(self._events) if subject in ("", event.subject)]
        return [event for event in wanted if end is None or position_of(event.id) < end][:limit]

    def revision(self) -> int:
        """See `AuditTrail`."""
        with self.lock:
            return len(self._events)


class OlderEvents(Protocol):
    """Where events go that are no longer in the stream."""

    def events(self, subject: str, limit: int, before_id: str) -> list[AuditEvent]:
        """As `AuditTrail.events`, of what was archived."""


class RedisTrail:
    """A trail in the stream `recsae:events`, and beyond its end in `older`."""

    def __init__(self, client: redis.Redis, older: OlderEvents | None = None) -> None:
        """`client` decodes responses."""
        self._client: Any = client
        self._older = older

    def events(self, subject: str = "", limit: int = 100, before_id: str = "") -> list[AuditEvent]:
        """See `AuditTrail`; reads no more events than it returns."""
        if before_id:
            position_of(before_id)
        with translated("reading the audit trail"):
            found = self._of(subject, limit, before_id) if subject else self._newest(limit, before_id)
        # Events archived since were read above or are in the archive: what is there is older than what was found.
        if len(found) < limit and self._older is not None:
            found += self._older.events(subject, limit - len(found), found[-1].id if found else before_id)
        return found

    def _newest(self, limit: int, before_id: str) -> list[AuditEvent]:
        found: list[AuditEvent] = []
        while len(found) < limit:
            count = min(_PAGE, limit - len(found))
            page = self._client.xrevrange(EVENTS, max=f"({before_id}" if before_id else "+", count=count)
            found += [event_of(*entry) for entry in page]
            if len(page) < count:
                break
            before_id = found[-1].id
        return found

    def _of(self, subject: str, limit: int, before_id: str) -> list[AuditEvent]:
        newest = self._client.xrevrange(EVENTS, max=f"({before_id}" if before_id else "+", count=1)
        if not newest:
            return []
        revision = newest[0][1]["revision"]
        ids = self._client.zrevrangebyscore(f"{SUBJECTS}{subject}", revision, "-inf", start=0, num=limit)
        found: list[AuditEvent] = []
        for start in range(0, len(ids), _PAGE):
            with self._client.pipeline(transaction=False) as pipeline:
                for event_id in ids[start : start + _PAGE]:
                    pipeline.xrange(EVENTS, event_id, event_id)
                found += [event_of(*entry) for entries in pipeline.execute() for entry in entries]
        return found

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


def position_of(event_id: str) -> tuple[int, int]:
    """What events sort by; InvalidRequestError when it is no id of an event."""
    if not _ID.fullmatch(event_id):
        raise InvalidRequestError(f"{event_id!r} is no id of an audit event; take one from the trail")
    first, _, second = event_id.partition("-")
    return int(first), int(second or 0)


def index_events(client: redis.Redis) -> None:
    """Lists by subject the events written since this was last done, which a release without such lists may have made.

    Called when a replica starts, so that after an upgrade the last one to be replaced leaves nothing out.
    """
    server: Any = client
    with translated("listing events by subject"):
        position = server.get(INDEXED)
        while page := server.xrange(EVENTS, min=f"({position}" if position else "-", count=_PAGE):
            position = page[-1][0]
            with server.pipeline(transaction=True) as pipeline:
                for event_id, fields in page:
                    pipeline.zadd(f"{SUBJECTS}{fields['subject']}", {event_id: int(fields["revision"])})
                pipeline.set(INDEXED, position)
                pipeline.execute()


def event_of(event_id: str, fields: dict[str, str]) -> AuditEvent:
    """The event of a stream entry."""
    change = Change(fields["actor"], fields["action"], fields["reason"], fields["request_id"], float(fields["at"]))
    return AuditEvent(event_id, change, fields["subject"], fields["before"], fields["after"], int(fields["revision"]))
