"""A backup of the `state` server as one file: gzip of JSON lines that people and other servers' versions can read.

The first line names the format; then come one line per key, one per audit event, oldest first; the last line is the
manifest: counts, the revision all of it is of, the artifacts it points at, and the SHA-256 of every line before. A file
without its last line is no backup. Not here: Redis (`recsae.store.backup`, `recsae.store.restore`).
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from recsae.errors import CorruptArtifactError, NotFoundError
from recsae.store.audit_archive import Entry
from recsae.store.files import atomic_file

SCHEMA_VERSION = 1
_FORMAT = "recsae-backup"
Kind = Literal["string", "hash", "list", "set", "zset"]


@dataclass(frozen=True)
class StoredKey:
    """One key: text, a list of texts (list, set) or of pairs of field and text (hash) or member and score (zset).

    `expires_at_ms` since the epoch; None = never.
    """

    key: str
    kind: Kind
    value: Any
    expires_at_ms: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What a backup holds. `revision` is the counter all of it is of; `artifacts` maps kinds to versions."""

    created_at: str
    revision: int
    keys: int
    events: int
    policies: int
    artifacts: Mapping[str, list[str]]
    sha256: str = ""


def write_state(path: Path, keys: Iterable[StoredKey], events: Iterable[Entry], manifest: Manifest) -> Manifest:
    """Writes the file, readable by its owner alone; returns the manifest with counts and checksum filled in."""
    digest = hashlib.sha256()
    n_keys = n_events = 0
    with atomic_file(path) as target, gzip.GzipFile(filename="", fileobj=target, mode="wb", mtime=0) as stream:

        def write(line: Any) -> None:
            content = json.dumps(line, sort_keys=True, ensure_ascii=False).encode() + b"\n"
            digest.update(content)
            stream.write(content)

        write({"format": _FORMAT, "schema_version": SCHEMA_VERSION})
        for key in keys:
            write({"key": asdict(key)})
            n_keys += 1
        for event in events:
            write({"event": event})
            n_events += 1
        facts = asdict(manifest) | {"keys": n_keys, "events": n_events, "sha256": digest.hexdigest()}
        write({"manifest": facts})
    return Manifest(**facts)


def read_manifest(path: Path) -> Manifest:
    """Reads the whole file and checks it; its manifest.

    NotFoundError when there is none; CorruptArtifactError when it is no backup, is cut short or was changed.
    """
    found: Manifest | None = None
    digest = hashlib.sha256()
    n_keys = n_events = 0
    for content, line in _lines(path):
        if found is not None:
            raise CorruptArtifactError(f"{path} goes on after its manifest; take another backup")
        if "manifest" in line:
            found = _manifest(path, line["manifest"])
            continue
        digest.update(content)
        n_keys += "key" in line
        n_events += "event" in line
    if found is None:
        raise CorruptArtifactError(f"{path} has no manifest at its end: it was cut short; take another backup")
    if (found.sha256, found.keys, found.events) != (digest.hexdigest(), n_keys, n_events):
        raise CorruptArtifactError(f"{path} does not match its checksum: it was changed; take another backup")
    return found


def _manifest(path: Path, facts: Any) -> Manifest:
    try:
        return Manifest(**facts)
    except TypeError as error:
        raise CorruptArtifactError(f"{path} has a manifest of another form ({error}); take another backup") from error


def read_keys(path: Path) -> Iterator[StoredKey]:
    """The keys of a checked file."""
    return (StoredKey(**line["key"]) for _, line in _lines(path) if "key" in line)


def read_events(path: Path) -> Iterator[Entry]:
    """The audit events of a checked file, oldest first."""
    return ((line["event"][0], line["event"][1]) for _, line in _lines(path) if "event" in line)


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}; make one with `recsae backup`")
    try:
        with gzip.open(path, "rb") as stream:
            first = json.loads(stream.readline())
            if first.get("format") != _FORMAT:
                raise CorruptArtifactError(f"{path} is no backup of RecSAE; make one with `recsae backup`")
            if first["schema_version"] != SCHEMA_VERSION:
                raise CorruptArtifactError(
                    f"{path} has schema {first['schema_version']}, this release reads {SCHEMA_VERSION}; "
                    "restore it with the release that made it"
                )
            stream.seek(0)
            for content in stream:
                line = json.loads(content)
                if not isinstance(line, dict):
                    raise CorruptArtifactError(f"{path} cannot be read: a line is no record; take another backup")
                yield content, line
    except (OSError, EOFError, ValueError, AttributeError, TypeError) as error:
        raise CorruptArtifactError(f"{path} cannot be read to its end ({error}); take another backup") from error
