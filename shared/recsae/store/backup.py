"""Writes everything the `state` server alone knows into one file, as of one revision.

Everything but the audit stream is read by one script, so no write can fall in between (policies with their revisions,
kill switches, channels, label edits, run records, idempotency keys); the stream, by far the largest and only ever
appended to, is read in pages up to where it ended then. Left out, since it comes back by itself: leases, drift counters
and records, and lists of events by subject. Artifacts are named, not copied.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis

from recsae.errors import UnavailableError
from recsae.store.audit_archive import ARCHIVES, AUDIT, Entry, archive_from_json
from recsae.store.events import EVENTS, REVISION
from recsae.store.redis import translated
from recsae.store.state_file import Manifest, StoredKey, write_state

PREFIX = "recsae:"
POLICIES = "recsae:policies"
# The second line is people's: it does not belong to this server, and must never travel in a backup of it.
LEFT_OUT = (
    *(EVENTS, "recsae:lease:", "recsae:drift"),
    *("recsae:history", "recsae:attributes:"),
)
_CHANNELS = "recsae:channels:"
_PAGE = 200
_TRIES = 3
_KINDS = {"model_version": "model", "sae_version": "sae", "dictionary_version": "dictionary"}

# ARGV: prefix, then prefixes left out. KEYS: events. Returns the time in ms, the newest event, how many there are, and
# per key its name, type, time to live in ms (negative = for ever) and content.
_COLLECT = """
local time = redis.call('TIME')
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local found = {time[1] * 1000 + math.floor(time[2] / 1000), newest and newest[1] or '', redis.call('XLEN', KEYS[1])}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local wanted = true
  for i = 2, #ARGV do wanted = wanted and string.sub(key, 1, #ARGV[i]) ~= ARGV[i] end
  if wanted then
    local kind = redis.call('TYPE', key).ok
    local value
    if kind == 'string' then value = redis.call('GET', key)
    elseif kind == 'hash' then value = redis.call('HGETALL', key)
    elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'set' then value = redis.call('SMEMBERS', key)
    elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    else return redis.error_reply('RECSAE key ' .. key .. ' has type ' .. kind) end
    table.insert(found, {key, kind, redis.call('PTTL', key), value})
  end
end
return found
"""


@dataclass(frozen=True)
class _Collected:
    keys: list[StoredKey]
    newest_event: str
    events: int

    @property
    def revision(self) -> int:
        return next((int(one.value) for one in self.keys if one.key == REVISION), 0)

    @property
    def policies(self) -> int:
        return next((len(one.value) for one in self.keys if one.key == POLICIES), 0)


class _TrimmedError(Exception):
    """Events were archived while they were read."""


def back_up(client: redis.Redis, path: Path) -> Manifest:
    """Writes the backup; what it holds. `client` decodes responses.

    UnavailableError when the server does not answer, or archives events each time they are read.
    """
    script = client.register_script(_COLLECT)
    for _ in range(_TRIES):
        with translated("reading the state"):
            collected = _collected(script(keys=[EVENTS], args=[PREFIX, *LEFT_OUT]))
            facts = Manifest(
                datetime.now(UTC).isoformat(timespec="seconds"),
                collected.revision,
                keys=len(collected.keys),
                events=collected.events,
                policies=collected.policies,
                artifacts=artifacts_of(collected.keys),
            )
            try:
                return write_state(path, collected.keys, _events(client, collected), facts)
            except _TrimmedError:
                continue
    raise UnavailableError(f"audit events were archived {_TRIES} times while they were read; try again")


def artifacts_of(keys: Iterable[StoredKey]) -> dict[str, list[str]]:
    """Versions by kind of the artifacts that channels, their histories and the audit trail point at, sorted."""
    found: dict[str, set[str]] = {}
    for key in keys:
        if key.key == ARCHIVES:
            found[AUDIT] = {archive_from_json(text).version for text in key.value}
        elif key.key.startswith(_CHANNELS):
            texts = [text for _, text in key.value] if key.kind == "hash" else key.value
            for record in map(json.loads, texts):
                triple = record.get("triple", record) if isinstance(record, dict) else {}
                for field, kind in _KINDS.items():
                    found.setdefault(kind, set()).update([triple[field]] if triple.get(field) else [])
    return {kind: sorted(versions) for kind, versions in sorted(found.items())}


def _collected(answer: list[Any]) -> _Collected:
    now_ms, newest, count, *entries = answer
    return _Collected(sorted((_key(entry, now_ms) for entry in entries), key=lambda one: one.key), newest, count)


def _key(entry: list[Any], now_ms: int) -> StoredKey:
    key, kind, left_ms, value = entry
    if kind == "hash":
        value = sorted(zip(value[::2], value[1::2], strict=True))
    elif kind == "zset":
        value = [(member, float(score)) for member, score in zip(value[::2], value[1::2], strict=True)]
    elif kind == "set":
        value = sorted(value)
    return StoredKey(key, kind, value, now_ms + left_ms if left_ms >= 0 else None)


def _events(client: Any, collected: _Collected) -> Iterator[Entry]:
    position, count = "-", 0
    while collected.newest_event and (
        page := client.xrange(EVENTS, min=position, max=collected.newest_event, count=_PAGE)
    ):
        yield from page
        count += len(page)
        position = f"({page[-1][0]}"
    if count != collected.events:
        raise _TrimmedError
