"""Puts a backup in the place of what a `state` server holds, in one step, or not at all.

Everything is first written beside the state, under other names; one script then takes the old state away, renames the
new one into place and records the event. Cut short before that, the state is as it was, and the next restore takes away
what is left of the copy once it is an hour old. The revision goes up to the seconds since the epoch: above what any
replica can have seen, on a server that is empty by now too, as long as there is less than a change a second; so whoever
watches it takes the restored state for newer than its own. Not here: the file (`recsae.store.state_file`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import redis

from recsae.errors import ConflictError, FailedPreconditionError
from recsae.store.acknowledging import AcknowledgedWrites
from recsae.store.artifacts import ArtifactStore
from recsae.store.audit_archive import Entry
from recsae.store.backup import LEFT_OUT, PREFIX
from recsae.store.events import EVENTS, RECORD_LUA, REVISION, SUBJECTS, Change, change_arguments
from recsae.store.redis import translated
from recsae.store.state_file import Manifest, StoredKey, read_events, read_keys, read_manifest

_STAGED = "recsae-restore:"  # then the time and a word of this restore's own, so that two at once do not meet
_OLD_COPY_S = 3600.0
_PAGE = 200
_PIECE = 1_000
T = TypeVar("T")

# KEYS: events, revision. ARGV 7..12: revision of the backup, revision of the state to replace ("" = it must be empty),
# least revision to go on from, prefix of the staged keys, SHA-256 of the backup, prefix of the state; then prefixes
# that are no state.
_SWITCH = (
    RECORD_LUA
    + """
local old = {}
for _, key in ipairs(redis.call('KEYS', ARGV[12] .. '*')) do
  local counts = string.sub(key, 1, #KEYS[1]) == KEYS[1]
  if not counts then
    counts = true
    for i = 13, #ARGV do counts = counts and string.sub(key, 1, #ARGV[i]) ~= ARGV[i] end
  end
  if counts then table.insert(old, key) end
end
local current = redis.call('GET', KEYS[2]) or '0'
if ARGV[8] == '' and #old > 0 then return {'not_empty', current} end
if ARGV[8] ~= '' and ARGV[8] ~= current then return {'changed', current} end
for _, key in ipairs(old) do redis.call('UNLINK', key) end
for _, key in ipairs(redis.call('KEYS', ARGV[10] .. '*')) do
  redis.call('RENAME', key, string.sub(key, #ARGV[10] + 1))
end
local next = math.max(tonumber(ARGV[7]) + 1, tonumber(current) + 1, tonumber(ARGV[9]))
redis.call('SET', KEYS[2], string.format('%d', next - 1))
record('{"revision": ' .. current .. '}', '{"backup_revision": ' .. ARGV[7] .. ', "sha256": "' .. ARGV[11] .. '"}')
return {'restored', string.format('%d', next)}
"""
)


@dataclass(frozen=True)
class Restored:
    """What was restored, the revision from which it counts, and artifacts it points at that are not there, by kind."""

    manifest: Manifest
    revision: int
    missing: dict[str, list[str]]


def state_revision(client: redis.Redis) -> int | None:
    """The revision of the state there is; None when there is none."""
    server: Any = client
    with translated("looking for a state"):
        if all(_left_out(key) for key in server.scan_iter(f"{PREFIX}*", count=1000)):
            return None
        return int(server.get(REVISION) or 0)


def restore(
    client: redis.Redis,
    path: Path,
    artifacts: ArtifactStore,
    *,
    actor: str,
    reason: str,
    replaced: int | None = None,
    clock: Callable[[], float] = time.time,
) -> Restored:
    """Restores a backup into an empty server, or in place of the state at revision `replaced`.

    CorruptArtifactError when the file is not as it was written. FailedPreconditionError when there is a state and
    `replaced` is not given; ConflictError when it has moved on from there. `client` decodes responses.
    """
    manifest = read_manifest(path)
    if replaced is None and state_revision(client) is not None:
        raise _not_empty()
    missing = missing_artifacts(manifest, artifacts)
    now = clock()
    staged = f"{_STAGED}{int(now)}:{secrets.token_hex(4)}:"
    with translated("writing the backup beside the state"):
        _clear(client, lambda key: int(key.split(":")[1]) < now - _OLD_COPY_S)
        _stage(client, path, staged, int(now * 1000))
    script = client.register_script(_SWITCH)
    change = Change(actor, "state.restore", reason, "", now)
    arguments: list[str | int] = [
        *change_arguments(change, "state"),
        manifest.revision,
        "" if replaced is None else replaced,
        int(now),
        staged,
        manifest.sha256,
        PREFIX,
        *LEFT_OUT,
    ]
    outcome, revision = AcknowledgedWrites(client).run(
        lambda one: script(keys=[EVENTS, REVISION], args=arguments, client=one), "putting the backup into place"
    )
    if outcome == "restored":
        return Restored(manifest, int(revision), missing)
    with translated("taking the unused copy away"):
        _clear(client, lambda key: key.startswith(staged))
    if outcome == "not_empty":
        raise _not_empty()
    raise ConflictError(
        f"the state moved on to revision {revision} while it was to be replaced at {replaced}; stop what writes to it "
        "(the interpreters) and restore again"
    )


def missing_artifacts(manifest: Manifest, artifacts: ArtifactStore) -> dict[str, list[str]]:
    """Versions by kind that the backup points at and the store does not have."""
    there = {kind: set(artifacts.versions(kind)) for kind in manifest.artifacts}
    missing = {kind: [one for one in wanted if one not in there[kind]] for kind, wanted in manifest.artifacts.items()}
    return {kind: versions for kind, versions in missing.items() if versions}


def _not_empty() -> FailedPreconditionError:
    return FailedPreconditionError(
        "the state server is not empty; restore into an empty one, or replace what is there with --force"
    )


def _left_out(key: str) -> bool:
    return key.startswith(LEFT_OUT) and not key.startswith(EVENTS)


def _clear(client: Any, which: Callable[[str], bool]) -> None:
    for keys in _pages(filter(which, client.scan_iter(f"{_STAGED}*", count=1000))):
        client.unlink(*keys)


def _stage(client: Any, path: Path, staged: str, now_ms: int) -> None:
    for keys in _pages(read_keys(path), 20):
        with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                if key.expires_at_ms is None or key.expires_at_ms > now_ms:
                    _write_key(pipeline, staged, key)
            pipeline.execute()
    for events in _pages(read_events(path)):
        with client.pipeline(transaction=False) as pipeline:
            for event in events:
                _write_event(pipeline, staged, event)
            pipeline.execute()


def _write_key(pipeline: Any, staged: str, key: StoredKey) -> None:
    name = staged + key.key
    if key.kind == "string":
        pipeline.set(name, key.value)
    for piece in () if key.kind == "string" else _pages(key.value, _PIECE):
        match key.kind:
            case "hash":
                pipeline.hset(name, mapping=dict(piece))
            case "list":
                pipeline.rpush(name, *piece)
            case "set":
                pipeline.sadd(name, *piece)
            case "zset":
                pipeline.zadd(name, dict(piece))
    if key.expires_at_ms is not None:
        pipeline.pexpireat(name, key.expires_at_ms)


def _write_event(pipeline: Any, staged: str, event: Entry) -> None:
    event_id, fields = event
    pipeline.xadd(staged + EVENTS, fields, id=event_id)
    pipeline.zadd(f"{staged}{SUBJECTS}{fields['subject']}", {event_id: int(fields["revision"])})


def _pages(values: Iterable[T], size: int = _PAGE) -> Iterator[list[T]]:
    rest = iter(values)
    while page := list(islice(rest, size)):
        yield page
