"""What a data set is: items, users and time-ordered histories, and how it is kept in a folder.

Reading one back needs numpy, safetensors and JSON only, so that serving can. Item index 0 is padding everywhere:
position i of an `ItemTable` is item index i + 1.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from recsae.errors import InvalidRequestError, NotFoundError
from recsae.store.artifacts import ArtifactStore
from recsae.store.files import write_atomic, write_json_atomic
from recsae.store.pseudonyms import pseudonym

Columns = Mapping[str, tuple[str, ...]]


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
    source has no clock, in order only. Equal timestamps keep the order of the source file.
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

        Ties in time keep the file's order (a stable sort), which is the tie rule everywhere.
        """
        order = np.lexsort((np.arange(len(users)), timestamps, users))
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
        """The same data with keyed pseudonyms for user ids."""
        ids = tuple(pseudonym(key, user_id) for user_id in self.users.ids)
        return replace(self, users=replace(self.users, ids=ids))


def save_dataset(dataset: Dataset, folder: Path) -> None:
    """Writes `dataset` to `folder`, each file atomically."""
    histories = dataset.histories
    arrays = {"offsets": histories.offsets, "items": histories.items, "timestamps": histories.timestamps}
    write_atomic(folder / "histories.safetensors", save({name: np.ascontiguousarray(a) for name, a in arrays.items()}))
    items = {"ids": dataset.items.ids, "titles": dataset.items.titles, "columns": dict(dataset.items.columns)}
    write_json_atomic(folder / "items.json", items)
    write_json_atomic(folder / "users.json", {"ids": dataset.users.ids, "columns": dict(dataset.users.columns)})
    write_json_atomic(folder / "dataset.json", {"name": dataset.name, "schema_version": 1})


def load_dataset(folder: Path | str) -> Dataset:
    """Reads what `save_dataset` wrote. NotFoundError when the folder holds no data set."""
    folder = Path(folder)
    if not (folder / "dataset.json").is_file():
        raise NotFoundError(f"{folder} holds no data set; import one with `recsae data import`")
    arrays = load_file(folder / "histories.safetensors")
    items = json.loads((folder / "items.json").read_bytes())
    users = json.loads((folder / "users.json").read_bytes())
    return Dataset(
        name=json.loads((folder / "dataset.json").read_bytes())["name"],
        items=ItemTable(tuple(items["ids"]), tuple(items["titles"]), _columns(items["columns"])),
        users=UserTable(tuple(users["ids"]), _columns(users["columns"])),
        histories=Histories(arrays["offsets"], arrays["items"], arrays["timestamps"]),
    )


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
