"""The model bundle: the files a recommender is served from, and what they say about themselves.

A bundle is a folder with `trunk.onnx` (what the model reads -> activations), `head.onnx` (activation -> ranked
items), `items.json` and `bundle.json`, and optionally `trunk_positions.onnx` (every position's activation),
`head.safetensors` (item vectors of a dot-product head) and `users.json` (ids of the users it was trained with). Names,
shapes and types of the graphs' inputs and outputs: docs/models.md. Not here: what `bundle.json` says (`description`),
running the graphs (`runtime`) and making them (`export`, `importing`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from recsae.errors import InvalidRequestError
from recsae.recommenders.description import DESCRIPTION, BundleDescription, BundleError, read_json
from recsae.store.files import write_atomic

if TYPE_CHECKING:  # fsspec stays out of processes that only read a bundle
    from recsae.store.artifacts import Artifact, ArtifactStore

KIND = "model"
TRUNK, TRUNK_POSITIONS, HEAD = "trunk.onnx", "trunk_positions.onnx", "head.onnx"
ITEMS, USERS, HEAD_TENSORS = "items.json", "users.json", "head.safetensors"
# As safetensors writes them; others are shown as they are there.
_DTYPES = {"F32": "float32", "F64": "float64", "F16": "float16"}
FILES = (TRUNK, TRUNK_POSITIONS, HEAD, HEAD_TENSORS, ITEMS, USERS, DESCRIPTION)


@dataclass(frozen=True)
class ModelBundle:
    """A bundle on disk, checked for consistency. Item index i stands for `item_ids[i - 1]`; 0 is padding."""

    folder: Path
    version: str
    description: BundleDescription
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    user_ids: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: Path, version: str) -> Self:
        """Reads a bundle folder; BundleError names the file and the value that is wrong."""
        description = BundleDescription.read(folder)
        every = any(hook.all_positions for hook in description.hooks)
        for name in (TRUNK, HEAD, *([TRUNK_POSITIONS] if every else [])):
            if not (folder / name).is_file():
                raise BundleError(f"the bundle {description.name!r} in {folder} has no {name}; export it again")
        ids, titles = read_items(folder)
        if len(ids) != description.n_items:
            raise BundleError(
                f"{DESCRIPTION} of {description.name!r} says {description.n_items} items, {ITEMS} has {len(ids)}"
            )
        user_ids = read_users(folder) if description.inputs.user else ()
        if len(user_ids) != description.n_users:
            raise BundleError(
                f"{DESCRIPTION} of {description.name!r} says {description.n_users} users, {USERS} has {len(user_ids)}"
            )
        bundle = cls(folder, version, description, ids, titles, user_ids)
        if description.head == "dot_product":
            bundle._check_head_tensors()
        return bundle

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Self:
        """The bundle of a fetched artifact of kind `model`."""
        if artifact.kind != KIND:
            raise BundleError(f"artifact {artifact.version} is a {artifact.kind}, not a {KIND}")
        return cls.load(artifact.folder, artifact.version)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.description.name

    @property
    def n_items(self) -> int:
        """Number of items; indices run from 1 to this."""
        return self.description.n_items

    @property
    def item_vectors(self) -> NDArray[np.float32] | None:
        """float32 [n_items + 1, d], row 0 padding; None for an opaque head."""
        return self._head_tensors.get("item_vectors")

    @property
    def item_bias(self) -> NDArray[np.float32] | None:
        """float32 [n_items + 1]; None when the head has no bias."""
        return self._head_tensors.get("item_bias")

    @cached_property
    def _head_tensors(self) -> dict[str, NDArray[np.float32]]:
        """Read on first use: serving lists alone never needs this copy of the item vectors."""
        if self.description.head == "opaque":
            return {}
        tensors = load_file(self.folder / HEAD_TENSORS)
        for tensor in tensors.values():
            tensor.flags.writeable = False
        return tensors

    def _check_head_tensors(self) -> None:
        path = self.folder / HEAD_TENSORS
        if not path.is_file():
            raise BundleError(
                f"the bundle {self.name!r} has a dot_product head but no {HEAD_TENSORS} with item_vectors"
            )
        try:
            with safe_open(path, "numpy") as opened:
                there = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  (no mapping)
                found = {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in there.items()}
        except SafetensorError as error:
            raise BundleError(f"{path} cannot be read as safetensors: {error}") from error
        rows = self.n_items + 1
        for name, shape in (("item_vectors", (rows, self.description.hooks[0].dim)), ("item_bias", (rows,))):
            if name == "item_bias" and name not in found:
                continue
            if found.get(name) != ("F32", shape):
                kind, size = found.get(name, ("missing", ""))
                is_there = f"{_DTYPES.get(kind, kind)} {size}".strip()
                raise BundleError(f"{HEAD_TENSORS} of {self.name!r}: {name} is {is_there}, expected float32 {shape}")

    @cached_property
    def _index(self) -> dict[str, int]:
        return {item: position for position, item in enumerate(self.item_ids, start=1)}

    @cached_property
    def _user_index(self) -> dict[str, int]:
        return {user: position for position, user in enumerate(self.user_ids, start=1)}

    def user_index(self, user_id: str) -> int:
        """Index of a user the model was trained with, from 1; 0 for anybody else."""
        return self._user_index.get(user_id, 0)

    def index_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """int64 indices of item ids, in order; InvalidRequestError names the first id the model does not know."""
        index = self._index
        unknown = next((item for item in ids if item not in index), None)
        if unknown is not None:
            raise InvalidRequestError(
                f"item {unknown!r} is unknown to model {self.name} {self.version}; "
                f"leave it out or use a model trained with it"
            )
        return np.fromiter((index[item] for item in ids), dtype=np.int64, count=len(ids))

    def index_of_known(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Like `index_of`, leaving out ids the model does not know."""
        # Indices begin at 1, so that what is unknown, None, is the only thing to filter out.
        return np.fromiter(filter(None, map(self._index.get, ids)), dtype=np.int64)

    def ids_of(self, indices: Iterable[int]) -> list[str]:
        """Item ids of indices 1..n_items; InvalidRequestError names an index outside."""
        chosen = [int(index) for index in indices]
        outside = next((index for index in chosen if not 1 <= index <= self.n_items), None)
        if outside is not None:
            raise InvalidRequestError(f"item index {outside} is outside 1..{self.n_items} of model {self.name}")
        return [self.item_ids[index - 1] for index in chosen]


def write_items(folder: Path, ids: Sequence[str], titles: Sequence[str]) -> None:
    """Writes `items.json`; position i is item index i + 1."""
    content = json.dumps({"ids": list(ids), "titles": list(titles)}, ensure_ascii=False)
    write_atomic(folder / ITEMS, content.encode())


def read_items(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids and titles of `items.json`; titles default to the ids."""
    raw = read_json(folder / ITEMS)
    ids = tuple(raw.get("ids", ()))
    titles = tuple(raw.get("titles", ids))
    if not ids or not all(isinstance(item, str) for item in (*ids, *titles)):
        raise BundleError(f"{folder / ITEMS} needs a non-empty list `ids` of strings, and `titles` of strings")
    if len(titles) != len(ids):
        raise BundleError(
            f"{folder / ITEMS} has {len(ids)} ids and {len(titles)} titles; there must be one title per id"
        )
    if len(set(ids)) != len(ids):
        repeated = next(item for position, item in enumerate(ids) if item in ids[:position])
        raise BundleError(f"{folder / ITEMS} has the id {repeated!r} more than once")
    return ids, titles


def write_users(folder: Path, ids: Sequence[str]) -> None:
    """Writes `users.json`; position i is user index i + 1. Ids are pseudonyms where the bundle is published."""
    write_atomic(folder / USERS, json.dumps({"ids": list(ids)}, ensure_ascii=False).encode())


def read_users(folder: Path) -> tuple[str, ...]:
    """Ids of `users.json`."""
    ids = tuple(read_json(folder / USERS).get("ids", ()))
    if not ids or not all(isinstance(user, str) and user for user in ids):
        raise BundleError(f"{folder / USERS} needs a non-empty list `ids` of strings")
    if len(set(ids)) != len(ids):
        raise BundleError(f"{folder / USERS} has an id more than once")
    return ids


def publish_bundle(
    store: ArtifactStore,
    folder: Path,
    *,
    lineage: Mapping[str, str] | None = None,
    scores: Mapping[str, float] | None = None,
) -> str:
    """Checks a bundle folder and publishes it as an artifact of kind `model`; returns its version."""
    description = ModelBundle.load(folder, version="unpublished").description
    config = {key: value for key, value in asdict(description).items() if key != "metrics"}
    return store.publish(KIND, folder, config=config, lineage=lineage or {}, scores=scores or description.metrics)
