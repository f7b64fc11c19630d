"""Content-addressed, immutable artifacts on any fsspec file system.

An artifact is a folder `<root>/<kind>/<version>/` of files and a `manifest.json` that names each file's
SHA-256. The version is the hash of kind, file hashes, config and lineage, so equal content has one version and
publishing twice is harmless. The manifest is written last: a folder without one does not exist for readers.
Not here: what the files mean (each domain reads its own) and pointers to artifacts (`recsae.store.channels`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from recsae.errors import CorruptArtifactError, InvalidRequestError, NotFoundError
from recsae.store.files import canonical_json, fsync_file, fsync_folder, sha256_of

SCHEMA_VERSION = 1
_VERSION_DIGITS = 16
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """A verified local copy of an artifact."""

    kind: str
    version: str
    folder: Path
    config: Mapping[str, Any]
    lineage: Mapping[str, str]
    scores: Mapping[str, float]
    created_at: str

    def path(self, name: str) -> Path:
        """Path of one of its files; NotFoundError when it has no such file."""
        path = self.folder / name
        if not path.is_file():
            raise NotFoundError(f"{self.kind} {self.version} has no file {name!r}")
        return path


class ArtifactStore:
    """Publishes and fetches artifacts under one root URL (`/path`, `file://`, `s3://`, `memory://`)."""

    def __init__(self, root: str, cache: Path | None = None) -> None:
        """`cache` holds local copies of remote artifacts; a local root needs none."""
        self._fs, self._root = fsspec.core.url_to_fs(root)
        self._local = isinstance(self._fs, LocalFileSystem)
        self._cache = cache or Path(tempfile.gettempdir()) / "recsae-artifacts"

    def publish(
        self,
        kind: str,
        source: Path,
        *,
        config: Mapping[str, Any],
        lineage: Mapping[str, str],
        scores: Mapping[str, float] | None = None,
    ) -> str:
        """Publishes every file of the folder `source`; returns the version, 16 hex digits.

        `config` says how it was made, `lineage` maps names to versions it was made from; both are part of the
        version. `scores` are informative and are not.
        """
        files = {
            path.relative_to(source).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size}
            for path in sorted(source.rglob("*"))
            if path.is_file() and path.name != _MANIFEST
        }
        if not files:
            raise InvalidRequestError(f"nothing to publish as {kind}: {source} holds no files")
        identity = {
            "schema_version": SCHEMA_VERSION,
            "kind": kind,
            "files": files,
            "config": dict(config),
            "lineage": dict(lineage),
        }
        version = hashlib.sha256(canonical_json(identity)).hexdigest()[:_VERSION_DIGITS]
        target = self._path(kind, version)
        if self._fs.exists(f"{target}/{_MANIFEST}"):
            return version
        manifest = canonical_json(
            identity | {"version": version, "scores": dict(scores or {}), "created_at": datetime.now(UTC).isoformat()}
        )
        if self._local:
            _publish_local(Path(target), source, sorted(files), manifest)
        else:
            for name in files:
                self._fs.put_file(str(source / name), f"{target}/{name}")
            self._fs.pipe_file(f"{target}/{_MANIFEST}", manifest)
        return version

    def fetch(self, kind: str, version: str) -> Artifact:
        """A local copy whose every file matched its checksum.

        NotFoundError when it was never published; CorruptArtifactError names the first file that differs.
        """
        remote = self._path(kind, version)
        if not self._fs.exists(f"{remote}/{_MANIFEST}"):
            raise NotFoundError(f"no {kind} of version {version!r} under {self._root}; publish it first")
        folder = Path(remote) if self._local else self._download(kind, version)
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        if manifest.get("schema_version") != SCHEMA_VERSION:
            raise CorruptArtifactError(
                f"{kind} {version} has manifest schema {manifest.get('schema_version')!r}, "
                f"this release reads {SCHEMA_VERSION}; publish it again with this release"
            )
        for name, facts in manifest["files"].items():
            path = folder / name
            if not path.is_file() or sha256_of(path) != facts["sha256"]:
                raise CorruptArtifactError(
                    f"{kind} {version}: {name} does not match its checksum; restore or publish it again"
                )
        return Artifact(
            kind=kind,
            version=version,
            folder=folder,
            config=manifest["config"],
            lineage=manifest["lineage"],
            scores=manifest["scores"],
            created_at=manifest["created_at"],
        )

    def versions(self, kind: str) -> list[str]:
        """Published versions of a kind, in no order."""
        folder = f"{self._root}/{kind}"
        if not self._fs.exists(folder):
            return []
        names = [str(path).rstrip("/").rsplit("/", 1)[-1] for path in self._fs.ls(folder, detail=False)]
        return [name for name in names if self._fs.exists(f"{folder}/{name}/{_MANIFEST}")]

    def _path(self, kind: str, version: str) -> str:
        if not version or not all(character in "0123456789abcdef" for character in version):
            raise InvalidRequestError(f"{version!r} is not a version; a version is {_VERSION_DIGITS} hex digits")
        return f"{self._root}/{kind}/{version}"

    def _download(self, kind: str, version: str) -> Path:
        target = self._cache / kind / version
        if not (target / _MANIFEST).exists():
            staging = self._cache / f".{uuid.uuid4().hex}"
            staging.mkdir(parents=True)
            try:
                self._fs.get(f"{self._path(kind, version)}/", f"{staging}/", recursive=True)
                target.parent.mkdir(parents=True, exist_ok=True)
                _rename_into_place(staging, target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return target


def _publish_local(target: Path, source: Path, names: list[str], manifest: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=".publishing-"))
    try:
        for name in names:
            copy = staging / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, copy)
            fsync_file(copy)
        (staging / _MANIFEST).write_bytes(manifest)
        fsync_file(staging / _MANIFEST)
        for folder in {(staging / name).parent for name in names} | {staging}:
            fsync_folder(folder)
        os.chmod(staging, 0o755)
        _rename_into_place(staging, target)
        fsync_folder(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _rename_into_place(staging: Path, target: Path) -> None:
    """Renames a complete folder to its final name; a concurrent publisher of the same content may win."""
    try:
        os.rename(staging, target)
    except OSError:
        if not (target / _MANIFEST).exists():
            raise
