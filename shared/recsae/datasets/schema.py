"""What a data set is: items, users and time-ordered histories, and how it is kept in a folder.

Reading one back needs numpy, safetensors and JSON only, so that serving can. Item index 0 is padding everywhere:
position i of an `ItemTable` is item index i + 1.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from recsae.errors import CorruptArtifactError, InvalidRequestError, NotFoundError
from recsae.store.artifacts import ArtifactStore
from recsae.store.files import canonical_json, write_atomic, write_json_atomic
from recsae.store.pseudonyms import pseudonym

Columns = Mapping[str, tuple[str, ...]]

_SCHEMA_VERSION = 1
_MANIFEST = "dataset.json"
_HISTORIES, _ITEMS, _USERS = "histories.safetensors", "items.json", "users.json"


@dataclass(frozen=True)
class ItemTable:
    """Items in index order; `columns` hold metadata as text, "" where absent, several values separated by `|`."""

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    columns: Columns

    @property
    def count(self) -> int:
        """Number of items, padding not counted."""
        return len(self.ids)


@dataclass(frozen=True)
class UserTable:
    """Users in index order; `columns` hold attributes as text, "" where absent."""

    ids: tuple[str, ...]
    columns: Columns


@dataclass(frozen=True)
class Histories:
    """Interactions of all users, oldest first, as one ragged array.

    offsets int64 [n_users + 1], items int32 [n] (index from 1), timestamps float64 [n] in seconds or, where the
    source has no clock, in order only.

    **Tie rule**: of a user's interactions with equal timestamps, the one further up in the source counts as older.
    """

    offsets: NDArray[np.int64]
    items: NDArray[np.int32]
    timestamps: NDArray[np.float64]

    @property
    def n_users(self) -> int:
        """Number of users, those without interactions included."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [n_users]: interactions of each user."""
        return np.diff(self.offsets)

    @property
    def users(self) -> NDArray[np.int64]:
        """int64 [n]: the user index of each interaction."""
        return np.repeat(np.arange(self.n_users), self.lengths)

    def of(self, user: int) -> NDArray[np.int32]:
        """int32 [length]: items of one user, oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def keep(self, mask: NDArray[np.bool_]) -> Histories:
        """The interactions where mask [n] holds; users keep their index."""
        kept_before = np.concatenate([[0], np.cumsum(mask)]).astype(np.int64)
        return Histories(kept_before[self.offsets], self.items[mask], self.timestamps[mask])

    @classmethod
    def from_rows(
        cls,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        timestamps: NDArray[np.float64],
        n_users: int,
    ) -> Histories:
        """Histories from rows in file order: user index from 0, item index from 1, time.

        A stable sort by user and time, so equal timestamps keep the order of the rows: the tie rule.
        """
        order = np.lexsort((timestamps, users))
        counts = np.bincount(users, minlength=n_users)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(offsets, items[order].astype(np.int32), timestamps[order].astype(np.float64))


@dataclass(frozen=True)
class Dataset:
    """Items, users and histories under one name."""

    name: str
    items: ItemTable
    users: UserTable
    histories: Histories

    def pseudonymised(self, key: bytes) -> Dataset:
        """The same data with keyed pseudonyms for user ids and without attributes.

        Age, occupation and place together point at a person, however well the id is hidden.
        """
        ids = tuple(pseudonym(key, user_id) for user_id in self.users.ids)
        return replace(self, users=UserTable(ids, {}))

    def fingerprint(self) -> str:
        """16 hex digits of the content: equal for equal items, users and histories, whatever the name."""
        digests = _digests(_serialised(self))
        return hashlib.sha256(canonical_json(digests)).hexdigest()[:16]


def save_dataset(dataset: Dataset, folder: Path) -> None:
    """Writes `dataset` to `folder`: three content files, then the manifest that names their checksums."""
    files = _serialised(dataset)
    for name, content in files.items():
        write_atomic(folder / name, content)
    manifest = {"name": dataset.name, "schema_version": _SCHEMA_VERSION, "sha256": _digests(files)}
    write_json_atomic(folder / _MANIFEST, manifest)


def load_dataset(folder: Path | str) -> Dataset:
    """Reads what `save_dataset` wrote.

    NotFoundError when the folder holds no data set; CorruptArtifactError when a file is not the one its manifest
    names or the histories point outside the items.
    """
    folder = Path(folder)
    if not (folder / _MANIFEST).is_file():
        raise NotFoundError(f"{folder} holds no data set; import one with `recsae data import`")
    manifest = json.loads((folder / _MANIFEST).read_bytes())
    if manifest["schema_version"] != _SCHEMA_VERSION:
        raise CorruptArtifactError(
            f"{folder} has data set schema {manifest['schema_version']!r}, this release reads {_SCHEMA_VERSION}; "
            "import it again"
        )
    files = {name: _read_checked(folder, name, digest) for name, digest in manifest["sha256"].items()}
    arrays, items, users = load(files[_HISTORIES]), json.loads(files[_ITEMS]), json.loads(files[_USERS])
    dataset = Dataset(
        name=manifest["name"],
        items=ItemTable(tuple(items["ids"]), tuple(items["titles"]), _columns(items["columns"])),
        users=UserTable(tuple(users["ids"]), _columns(users["columns"])),
        histories=Histories(arrays["offsets"], arrays["items"], arrays["timestamps"]),
    )
    _check(dataset, folder)
    return dataset


def publish_dataset(store: ArtifactStore, dataset: Dataset, key: bytes) -> str:
    """Publishes the data set with pseudonymous users as an artifact of kind `dataset`; returns its version."""
    if not len(dataset.histories.items):
        raise InvalidRequestError(f"data set {dataset.name!r} holds no interactions")
    with tempfile.TemporaryDirectory() as folder:
        save_dataset(dataset.pseudonymised(key), Path(folder))
        config = {"name": dataset.name, "users": len(dataset.users.ids), "items": dataset.items.count}
        return store.publish("dataset", Path(folder), config=config, lineage={})


def _columns(raw: Mapping[str, list[str]]) -> Columns:
    return {name: tuple(values) for name, values in raw.items()}


def _serialised(dataset: Dataset) -> dict[str, bytes]:
    histories = dataset.histories
    arrays: dict[str, NDArray[Any]] = {
        "offsets": np.ascontiguousarray(histories.offsets, dtype=np.int64),
        "items": np.ascontiguousarray(histories.items, dtype=np.int32),
        "timestamps": np.ascontiguousarray(histories.timestamps, dtype=np.float64),
    }
    items = {"ids": dataset.items.ids, "titles": dataset.items.titles, "columns": dict(dataset.items.columns)}
    users = {"ids": dataset.users.ids, "columns": dict(dataset.users.columns)}
    return {_HISTORIES: save(arrays), _ITEMS: canonical_json(items), _USERS: canonical_json(users)}


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _read_checked(folder: Path, name: str, digest: str) -> bytes:
    path = folder / name
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise CorruptArtifactError(f"{path} does not match its checksum; import the data set again")
    return content


def _check(dataset: Dataset, folder: Path) -> None:
    """The files belong together: offsets span the interactions, users and items exist."""
    histories = dataset.histories
    count = len(histories.items)
    spans = histories.offsets[0] == 0 and histories.offsets[-1] == count and (histories.lengths >= 0).all()
    known = not count or (histories.items.min() >= 1 and histories.items.max() <= dataset.items.count)
    if not (spans and known and histories.n_users == len(dataset.users.ids) and len(histories.timestamps) == count):
        raise CorruptArtifactError(f"{folder}: the histories do not fit the items and users; import it again")
