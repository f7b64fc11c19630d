"""Activation shards: what a collect step writes and training reads, of any total size in bounded memory.

A shard is one safetensors file (`x`, `user`, `position`, `item`) and a JSON manifest of the same name, written after
it: a file without a manifest does not exist for readers. Reading is by memory map, a run of rows at a time. Not here:
how rows are shuffled (`batches`) and where activations come from. numpy and safetensors only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from recsae.errors import CorruptArtifactError, InvalidRequestError
from recsae.sae.flat_rows import FlatRows
from recsae.store.files import sha256_of, write_atomic, write_json_atomic

SCHEMA_VERSION = 1
ITEM_PROBE = -1  # `user` of rows that belong to no user: a single item sent through the model
_SUFFIX = ".safetensors"
_COLUMNS = ("x", "user", "position", "item")

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class ActivationShard:
    """Rows of activations with their subjects.

    `x` float32 [n, d]; `user` int32 [n], ITEM_PROBE for item probes; `position` int32 [n], index in the user's history;
    `item` int32 [n], the newest consumed item. Rows of one user lie together, oldest position first. A row of a
    multi-interest model holds all interests of a subject, [n, interests * d].
    """

    x: Floats
    user: Ints
    position: Ints
    item: Ints

    def __post_init__(self) -> None:
        """InvalidRequestError unless lengths and types agree and `x` is finite."""
        if self.x.ndim != 2 or self.x.dtype != np.float32:
            raise InvalidRequestError(f"activations must be float32 [n, d], not {self.x.dtype} {self.x.shape}")
        for name in ("user", "position", "item"):
            column = getattr(self, name)
            if column.shape != (len(self.x),) or column.dtype != np.int32:
                raise InvalidRequestError(f"{name} must be int32 [{len(self.x)}], not {column.dtype} {column.shape}")
        if not np.isfinite(self.x).all():
            raise InvalidRequestError("an activation shard holds NaN or infinity; check the recommender's output")

    def to_bytes(self) -> bytes:
        """The content of its safetensors file."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _COLUMNS}
        return bytes(safetensors.numpy.save(arrays))


@dataclass(frozen=True)
class MappedShard:
    """The columns of an `ActivationShard` as written; `x` [n, d] stays on disk until it is indexed."""

    x: Floats
    user: Ints
    position: Ints
    item: Ints


def item_probes(x: Floats, items: Ints) -> ActivationShard:
    """The shard of single-item histories: `x` [n, d] is what the model makes of `items` [n] alone."""
    return ActivationShard(x, np.full(len(x), ITEM_PROBE, np.int32), np.zeros(len(x), np.int32), items)


def write_shard(folder: Path, name: str, shard: ActivationShard, facts: Mapping[str, str]) -> Path:
    """Writes `<name>.safetensors`, then `<name>.json`; returns the manifest's path. Writing twice is harmless.

    `facts` say what the rows are: model, model_version, hook, interests, dataset; the reader refuses to mix them.
    """
    content = shard.to_bytes()
    write_atomic(folder / f"{name}{_SUFFIX}", content)
    manifest = folder / f"{name}.json"
    write_json_atomic(manifest, shard_manifest(shard, content, facts))
    return manifest


def shard_manifest(shard: ActivationShard, content: bytes, facts: Mapping[str, str]) -> dict[str, Any]:
    """What stands in a shard's manifest, as JSON types; `content` is what `to_bytes` gave."""
    return {
        "schema_version": SCHEMA_VERSION,
        "rows": len(shard.x),
        "d": int(shard.x.shape[1]),
        "sha256": hashlib.sha256(content).hexdigest(),
        "facts": dict(facts),
    }


def manifest_of(file: Path) -> Path:
    """Where the manifest of a shard file lies."""
    return file.with_suffix(".json")


class ShardReader:
    """Rows of several shards as one long matrix, read through memory maps."""

    def __init__(
        self, files: Sequence[Path], facts: Mapping[str, str] | None = None, checksums: Sequence[str] = ()
    ) -> None:
        """Opens shard files in the order given; use `open_files` or `open_folders`, which read their manifests.

        InvalidRequestError when there is none or they differ in d; CorruptArtifactError when one cannot be read.
        """
        if not files:
            raise InvalidRequestError("no activation shards to read; collect activations first")
        self.facts, self._checksums = dict(facts or {}), list(checksums)
        self._shards = [_OpenShard(path) for path in files]
        lengths = {shard.d for shard in self._shards}
        if len(lengths) != 1:
            raise InvalidRequestError(f"activation shards differ in length ({sorted(lengths)}); collect them again")
        self._starts = np.concatenate([[0], np.cumsum([shard.rows for shard in self._shards])])
        self.d = lengths.pop()
        self.n = int(self._starts[-1])
        self.interests = int(self.facts.get("interests", 1))
        if self.interests < 1 or self.d % self.interests:
            raise InvalidRequestError(
                f"activation rows of {self.d} numbers do not hold {self.interests} interests; collect them again"
            )

    @classmethod
    def open_folders(cls, *folders: Path, verify: bool = False) -> ShardReader:
        """Every shard with a manifest in the folders, by name; `verify` compares checksums first.

        InvalidRequestError when manifests disagree on what the rows are.
        """
        manifests = [path for folder in folders for path in sorted(folder.glob("*.json"))]
        return cls.open_files([path.with_suffix(_SUFFIX) for path in manifests], verify=verify)

    @classmethod
    def open_files(cls, files: Sequence[Path], *, verify: bool = False) -> ShardReader:
        """Shards in the order given, each with its manifest beside it; `verify` compares checksums first.

        InvalidRequestError when manifests disagree on what the rows are, CorruptArtifactError when one is missing.
        """
        described = [(file, _read_manifest(manifest_of(file))) for file in files]
        if len({json.dumps(manifest["facts"], sort_keys=True) for _, manifest in described}) > 1:
            raise InvalidRequestError("activation shards come from different models or hooks; collect them apart")
        for path, manifest in described:
            if verify and sha256_of(path) != manifest["sha256"]:
                raise CorruptArtifactError(f"{path.name} does not match its manifest; collect it again")
        checksums = [manifest["sha256"] for _, manifest in described]
        return cls([path for path, _ in described], described[0][1]["facts"] if described else None, checksums)

    def flat(self) -> FlatRows:
        """The rows as an SAE reads them: one per interest of a multi-interest model, these very rows of any other."""
        return FlatRows(self)

    @property
    def fingerprint(self) -> str:
        """Changes when the content changes, as manifests tell it, or the order; without manifests, names and sizes."""
        names = [(shard.path.name, shard.rows, shard.path.stat().st_size) for shard in self._shards]
        return hashlib.sha256(json.dumps([self.d, self._checksums or names]).encode()).hexdigest()

    def read(self, start: int, stop: int) -> Floats:
        """Activations of rows start..stop-1, float32 [stop - start, d], copied out of the maps."""
        return self._column("x", start, stop)

    def users(self, start: int, stop: int) -> Ints:
        """`user` of rows start..stop-1."""
        return self._column("user", start, stop)

    def shards(self) -> Iterator[ActivationShard]:
        """One shard after the other, each whole in memory."""
        for start, stop in zip(self._starts[:-1], self._starts[1:], strict=True):
            columns = {name: self._column(name, start, stop) for name in _COLUMNS}
            yield ActivationShard(**columns)

    def mapped(self) -> list[MappedShard]:
        """Every shard with `x` as a memory map, to pick single rows out of any number."""
        return [shard.mapped() for shard in self._shards]

    def _column(self, name: str, start: int, stop: int) -> NDArray[Any]:
        if not 0 <= start <= stop <= self.n:
            raise InvalidRequestError(f"rows {start}..{stop} are outside 0..{self.n}")
        parts = []
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        for shard, begin in zip(self._shards[first:], self._starts[first:], strict=False):
            if begin >= stop:
                break
            parts.append(shard.slice(name, max(0, start - begin), min(shard.rows, stop - begin)))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _OpenShard:
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = cast(Any, safetensors.safe_open(path, framework="numpy"))  # typed by its library only in part
            self._columns = {name: self._file.get_slice(name) for name in _COLUMNS}
        except (OSError, safetensors.SafetensorError) as error:
            raise CorruptArtifactError(f"{path} is no activation shard ({error}); collect it again") from error
        self.rows, self.d = self._columns["x"].get_shape()

    def slice(self, name: str, start: int, stop: int) -> NDArray[Any]:
        result: NDArray[Any] = self._columns[name][int(start) : int(stop)]
        return result

    def mapped(self) -> MappedShard:
        user, position, item = (self.slice(name, 0, self.rows) for name in ("user", "position", "item"))
        return MappedShard(_mapped_activations(self.path), user, position, item)


def _mapped_activations(path: Path) -> Floats:
    """`x` of a shard file; the safetensors library itself offers runs of rows only."""
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(header_size))["x"]
    return np.memmap(path, np.dtype("<f4"), "r", 8 + header_size + entry["data_offsets"][0], tuple(entry["shape"]))


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CorruptArtifactError(f"{path} is no shard manifest ({error}); collect it again") from error
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise CorruptArtifactError(
            f"{path} has schema {manifest.get('schema_version')!r}, this release reads {SCHEMA_VERSION}; collect again"
        )
    return manifest
