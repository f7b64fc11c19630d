"""Audit events beyond what Redis keeps: in the artifact store, as a chain of archives, each naming the one before.

Read here, written by `recsae.store.audit_archiving`. An archive is an artifact of kind `audit`: `events.jsonl.gz` with
one stream entry a line, oldest first. Redis keeps the chain, in `recsae:audit-archives` (list of JSON, oldest first),
and per subject which archives hold events of it, in `recsae:audit-archives:of:<subject>`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import redis

from recsae.errors import CorruptArtifactError
from recsae.store.artifacts import ArtifactStore
from recsae.store.events import AuditEvent, event_of, position_of
from recsae.store.files import sha256_of
from recsae.store.redis import translated

AUDIT = "audit"
ARCHIVES = "recsae:audit-archives"
ARCHIVES_OF = f"{ARCHIVES}:of:"
EVENTS_FILE = "events.jsonl.gz"

Entry = tuple[str, dict[str, str]]
"""Id and fields of a stream entry."""


@dataclass(frozen=True)
class Archive:
    """One archive: the artifact's version, the SHA-256 of its events file, and which events it holds.

    `previous` is the version of the archive before, "" for the first one.
    """

    version: str
    sha256: str
    previous: str
    first_id: str
    last_id: str
    last_revision: int
    events: int


class AuditArchive:
    """Reads archived events."""

    def __init__(self, client: redis.Redis, artifacts: ArtifactStore) -> None:
        """`client` decodes responses."""
        self._client: Any = client
        self._artifacts = artifacts

    def archives(self) -> list[Archive]:
        """All of them, oldest first."""
        with translated("reading the list of audit archives"):
            return [archive_from_json(text) for text in self._client.lrange(ARCHIVES, 0, -1)]

    def events(self, subject: str, limit: int, before_id: str) -> list[AuditEvent]:
        """The newest archived events, newest first; of one subject when named, only those before `before_id`.

        Opens only archives that hold one of them. CorruptArtifactError when one is not what was archived.
        """
        archives = [one for one in self.archives() if not before_id or _before(one.first_id, before_id)]
        if subject:
            with translated("reading which audit archives hold a subject"):
                holding = set(self._client.lrange(f"{ARCHIVES_OF}{subject}", 0, -1))
            archives = [one for one in archives if one.version in holding]
        found: list[AuditEvent] = []
        for archive in reversed(archives):
            for event_id, fields in reversed(self.entries(archive)):
                if subject in ("", fields["subject"]) and (not before_id or _before(event_id, before_id)):
                    found.append(event_of(event_id, fields))
            if len(found) >= limit:
                break
        return found[:limit]

    def entries(self, archive: Archive) -> list[Entry]:
        """Its stream entries, oldest first; CorruptArtifactError when they are not those that were archived."""
        artifact = self._artifacts.fetch(AUDIT, archive.version)
        path = artifact.path(EVENTS_FILE)
        if sha256_of(path) != archive.sha256 or artifact.lineage.get(AUDIT, "") != archive.previous:
            raise CorruptArtifactError(
                f"audit archive {archive.version} is not the one that was made; restore the artifact store"
            )
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            entries = [entry_from_line(line) for line in lines]
        if (len(entries), entries[0][0], entries[-1][0]) != (archive.events, archive.first_id, archive.last_id):
            raise CorruptArtifactError(
                f"audit archive {archive.version} does not hold the events it names; restore the artifact store"
            )
        return entries

    def verify(self) -> int:
        """Reads every archive and checks that each follows the one before; how many events they hold.

        CorruptArtifactError, NotFoundError name the first one that is not as it was made.
        """
        previous, end, count = "", "", 0
        for archive in self.archives():
            if archive.previous != previous or (end and not _before(end, archive.first_id)):
                raise CorruptArtifactError(
                    f"audit archive {archive.version} does not follow {previous or 'nothing'}; restore the state server"
                )
            count += len(self.entries(archive))
            previous, end = archive.version, archive.last_id
        return count


def archive_to_json(archive: Archive) -> str:
    """One line of JSON."""
    return json.dumps(asdict(archive), sort_keys=True)


def archive_from_json(text: str) -> Archive:
    """The archive `archive_to_json` was made from."""
    return Archive(**json.loads(text))


def lines_of(entries: Iterable[Entry]) -> bytes:
    """One stream entry a line, as JSON; equal entries have equal bytes."""
    return b"".join(
        json.dumps([event_id, fields], sort_keys=True, ensure_ascii=False).encode() + b"\n"
        for event_id, fields in entries
    )


def entry_from_line(line: str) -> Entry:
    """The entry of a line of `lines_of`."""
    event_id, fields = json.loads(line)
    return event_id, fields


def _before(event_id: str, other: str) -> bool:
    return position_of(event_id) < position_of(other)
