"""The work folder of a run: intermediate results at `<artifact root>/runs/<run id>/`, on any fsspec file system.

Readers see a file whole or not at all. Not here: what the files mean, and published artifacts.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from recsae.errors import NotFoundError
from recsae.store.files import canonical_json, fsync_file, fsync_folder, write_atomic


class Workspace:
    """Files by relative name, e.g. "collect/sae-0003.safetensors"."""

    def __init__(self, artifact_root: str, run_id: str, cache: Path | None = None) -> None:
        """`cache` holds local copies of remote files; a local root needs none."""
        self._fs, root = fsspec.core.url_to_fs(artifact_root)
        self._root = f"{root.rstrip('/')}/runs/{run_id}"
        self._local = isinstance(self._fs, LocalFileSystem)
        self._cache = (cache or Path(tempfile.gettempdir()) / "recsae-runs") / run_id

    def exists(self, name: str) -> bool:
        """True when the file is there, whole."""
        return bool(self._fs.exists(self._at(name)))

    def names(self, folder: str) -> set[str]:
        """Names of the files directly in `folder`, without it; empty when there is no such folder."""
        self._fs.invalidate_cache(self._at(folder))
        try:
            found = self._fs.ls(self._at(folder), detail=False)
        except FileNotFoundError:
            return set()
        names = {str(path).rstrip("/").rsplit("/", 1)[-1] for path in found}
        return {name for name in names if not name.startswith(".")}

    def write(self, name: str, content: bytes) -> None:
        """Writes a file; readers see the old one or the new one."""
        if self._local:
            write_atomic(Path(self._at(name)), content)
        else:
            self._fs.pipe_file(self._at(name), content)  # object stores replace whole objects

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """`write` of canonical JSON."""
        self.write(name, canonical_json(value))

    def read(self, name: str) -> bytes:
        """Content of a file; NotFoundError when it is not there."""
        try:
            content: bytes = self._fs.cat_file(self._at(name))
        except FileNotFoundError as error:
            raise NotFoundError(f"the run's work folder has no {name}; start a new run") from error
        return content

    def read_json(self, name: str) -> dict[str, Any]:
        """`read` of a JSON object."""
        value: dict[str, Any] = json.loads(self.read(name))
        return value

    def put(self, name: str, source: Path) -> None:
        """Moves a finished local file in."""
        if not self._local:
            self._fs.put_file(str(source), self._at(name))
            source.unlink()
            return
        target = Path(self._at(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.parent / f".{uuid.uuid4().hex}"
        shutil.move(source, staging)
        fsync_file(staging)
        os.replace(staging, target)
        fsync_folder(target.parent)

    def put_folder(self, name: str, source: Path) -> None:
        """Copies every file below `source`."""
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            copy = self.scratch(f"copy-{uuid.uuid4().hex}")
            shutil.copyfile(path, copy)
            self.put(f"{name}/{path.relative_to(source).as_posix()}", copy)

    def fetch(self, name: str) -> Path:
        """A local path of the file, to be read only; NotFoundError when it is not there."""
        if self._local:
            path = Path(self._at(name))
            if not path.is_file():
                raise NotFoundError(f"the run's work folder has no {name}; start a new run")
            return path
        path = self._cache / name
        if not path.is_file():
            content = self.read(name)
            write_atomic(path, content)
        return path

    def fetch_folder(self, name: str) -> Path:
        """A local path of the folder with every file below it, to be read only."""
        if self._local:
            return Path(self._at(name))
        for path in self._fs.find(self._at(name)):
            self.fetch(str(path).removeprefix(f"{self._root}/"))
        return self._cache / name

    def copy_folder(self, name: str, into: Path) -> Path:
        """A copy of the folder below `into`, to be written to. What a killed worker left half moved in is left out."""
        return Path(shutil.copytree(self.fetch_folder(name), into / "copy", ignore=shutil.ignore_patterns(".*")))

    def scratch(self, name: str) -> Path:
        """A local path for work in progress that survives a restart on this machine; its folder exists.

        On a local root it lies in the work folder itself, so another worker on the same root finds it too.
        """
        base = Path(self._root) if self._local else self._cache
        path = base / ".scratch" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def clear_scratch(self) -> None:
        """Removes all work in progress."""
        base = Path(self._root) if self._local else self._cache
        shutil.rmtree(base / ".scratch", ignore_errors=True)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"
