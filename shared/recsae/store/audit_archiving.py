"""Moves the oldest audit events from Redis to the artifact store, a whole archive at a time.

An archive is published and read back before one script adds it to the chain and trims the stream. Killed before that,
the next run makes the same archive again, of the same content and so of the same version; the script acts only on
the chain it was made for, so of several replicas one gets on and the others find it done. Not here: reading archives
(`recsae.store.audit_archive`), when it runs (`recsae_worker.app`).
"""

from __future__ import annotations

import gzip
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from recsae.errors import CorruptArtifactError
from recsae.store.artifacts import ArtifactStore
from recsae.store.audit_archive import (
    ARCHIVES,
    AUDIT,
    EVENTS_FILE,
    Archive,
    AuditArchive,
    Entry,
    archive_to_json,
    lines_of,
)
from recsae.store.events import EVENTS, position_of
from recsae.store.files import sha256_of, write_atomic
from recsae.store.redis import translated

_PAGE = 100
# Policies may list 10,000 users, so a few events can weigh as much as thousands of others.
_MOST_BYTES = 32 << 20
_DAY_S = 86_400

# KEYS: events, archives. ARGV: version of the archive before, JSON of this one, its first id, the first id to keep,
# its last revision, its version, then the subjects of its events. Returns 1, or 0 when another one was quicker.
_MOVE = """
local newest = redis.call('LINDEX', KEYS[2], -1)
if (newest and cjson.decode(newest).version or '') ~= ARGV[1] then return 0 end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if not first or first[1] ~= ARGV[3] then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[4])
for i = 7, #ARGV do
  redis.call('ZREMRANGEBYSCORE', KEYS[1] .. ':of:' .. ARGV[i], '-inf', ARGV[5])
  redis.call('RPUSH', KEYS[2] .. ':of:' .. ARGV[i], ARGV[6])
end
return 1
"""


@dataclass(frozen=True)
class Kept:
    """What stays in Redis: the `newest` events, and of these only those of the last `days` (0 = of any age).

    Beyond `newest`, up to a `batch` stays too, so that archives are of that size; by age at most one is made a day.
    """

    newest: int = 100_000
    days: float = 0.0
    batch: int = 5_000


class AuditLength:
    """How long the audit stream is."""

    def __init__(self, client: redis.Redis, kept: Kept) -> None:
        """`client` may decode responses or not."""
        self._client: Any = client
        self._kept = kept

    def events(self) -> int:
        """Events in Redis."""
        return int(self._client.xlen(EVENTS))

    def overdue(self) -> int:
        """Events that should have been archived by their number."""
        return max(0, self.events() - self._kept.newest - self._kept.batch)


class Archiver:
    """Archives what need not stay in Redis. Any number of them may run at once."""

    def __init__(self, client: redis.Redis, artifacts: ArtifactStore, kept: Kept) -> None:
        """`client` decodes responses."""
        self._client: Any = client
        self._artifacts = artifacts
        self._archive = AuditArchive(client, artifacts)
        self._kept = kept
        self._move = client.register_script(_MOVE)

    def run(self, now: float) -> list[Archive]:
        """The archives made; `now` in seconds since the epoch. UnavailableError when the server does not answer."""
        made: list[Archive] = []
        while entries := self._due(now):
            archive = self._publish(entries)
            if not self._moved(archive, entries):
                break
            made.append(archive)
        return made

    def _due(self, now: float) -> list[Entry]:
        """The oldest events, when they are due; the same ones each time until they are moved."""
        cutoff_ms = (now // _DAY_S - self._kept.days) * _DAY_S * 1000 if self._kept.days else 0
        with translated("looking for audit events to archive"):
            if self._client.xlen(EVENTS) - self._kept.newest >= self._kept.batch:
                return self._oldest()
            oldest = self._client.xrange(EVENTS, count=1)
            if not oldest or position_of(oldest[0][0])[0] >= cutoff_ms:
                return []
            return [entry for entry in self._oldest() if position_of(entry[0])[0] < cutoff_ms]

    def _oldest(self) -> list[Entry]:
        entries: list[Entry] = []
        size, position = 0, "-"
        while len(entries) < self._kept.batch and size < _MOST_BYTES:
            count = min(_PAGE, self._kept.batch - len(entries))
            page = self._client.xrange(EVENTS, min=position, count=count)
            entries += page
            if len(page) < count:
                break
            size += len(lines_of(page))
            position = f"({page[-1][0]}"
        return entries

    def _publish(self, entries: list[Entry]) -> Archive:
        chain = self._archive.archives()
        previous, previous_sha256 = (chain[-1].version, chain[-1].sha256) if chain else ("", "")
        first_id, last_id = entries[0][0], entries[-1][0]
        with tempfile.TemporaryDirectory(prefix="recsae-audit-") as folder:
            path = Path(folder) / EVENTS_FILE
            write_atomic(path, _compressed(lines_of(entries)))
            sha256 = sha256_of(path)
            version = self._artifacts.publish(
                AUDIT,
                Path(folder),
                config={
                    "first_id": first_id,
                    "last_id": last_id,
                    "events": len(entries),
                    "previous_sha256": previous_sha256,
                },
                lineage={AUDIT: previous} if previous else {},
            )
        last_revision = int(entries[-1][1]["revision"])
        archive = Archive(version, sha256, previous, first_id, last_id, last_revision, len(entries))
        if self._archive.entries(archive) != entries:
            raise CorruptArtifactError(f"audit archive {version} does not read back as written; nothing was trimmed")
        return archive

    def _moved(self, archive: Archive, entries: list[Entry]) -> bool:
        first, second = position_of(archive.last_id)
        subjects = sorted({fields["subject"] for _, fields in entries})
        arguments: list[str | int] = [
            *(archive.previous, archive_to_json(archive), archive.first_id, f"{first}-{second + 1}"),
            archive.last_revision,
            archive.version,
            *subjects,
        ]
        with translated("trimming archived audit events"):
            return bool(self._move(keys=[EVENTS, ARCHIVES], args=arguments))


def _compressed(content: bytes) -> bytes:
    """Gzip without a time or a name in it: equal content has equal bytes."""
    target = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=target, mode="wb", mtime=0) as stream:
        stream.write(content)
    return target.getvalue()
