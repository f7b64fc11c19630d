"""The model bundle: the files a recommender is served from, and what they say about themselves.

A bundle is a folder with `trunk.onnx` (histories -> activation), `head.onnx` (activation -> ranked items), `items.json`
and `bundle.json`, and optionally `trunk_positions.onnx` (every position's activation) and `head.safetensors` (the item
vectors of a dot-product head). Not here: running the graphs (`recsae.recommenders.runtime`) or making them
(`recsae.recommenders.export`, `recsae.recommenders.importing`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from recsae.errors import InvalidRequestError

if TYPE_CHECKING:  # fsspec stays out of processes that only read a bundle
    from recsae.store.artifacts import Artifact, ArtifactStore

KIND = "model"
FORMAT = 1
TRUNK, TRUNK_POSITIONS, HEAD = "trunk.onnx", "trunk_positions.onnx", "head.onnx"
ITEMS, HEAD_TENSORS, DESCRIPTION = "items.json", "head.safetensors", "bundle.json"

Side = Literal["user", "item"]
HeadKind = Literal["dot_product", "opaque"]


class BundleError(InvalidRequestError):
    """A bundle's files are missing, unreadable or contradict each other."""


@dataclass(frozen=True)
class Hook:
    """A place where activations can be read: `dim` float32 numbers per row."""

    name: str
    side: Side
    dim: int
    steerable: bool = True
    all_positions: bool = True


@dataclass(frozen=True)
class BundleDescription:
    """What `bundle.json` says. `metrics` are figures from training, for people; nothing computes with them."""

    name: str
    family: str
    max_history: int
    n_items: int
    head: HeadKind
    hooks: tuple[Hook, ...]
    passthrough: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses values that no graph could be served with."""
        if not self.name:
            raise BundleError(f"{DESCRIPTION} has an empty name; give the model a name")
        for what, value in (("max_history", self.max_history), ("n_items", self.n_items)):
            if not isinstance(value, int) or value < 1:
                raise BundleError(f"{DESCRIPTION} of {self.name!r}: {what} is {value!r}, it must be at least 1")
        if self.head not in get_args(HeadKind):
            raise BundleError(f"{DESCRIPTION} of {self.name!r}: head is {self.head!r}, not one of {get_args(HeadKind)}")
        if not self.hooks:
            raise BundleError(f"{DESCRIPTION} of {self.name!r} names no hook; name at least one")
        for hook in self.hooks:
            if hook.side not in get_args(Side) or hook.dim < 1:
                raise BundleError(f"{DESCRIPTION} of {self.name!r}: hook {hook} needs a side of user or item and a dim")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads `bundle.json`; BundleError says which field is wrong."""
        raw = _read_json(folder / DESCRIPTION)
        if raw.pop("format", None) != FORMAT:
            raise BundleError(
                f"{folder / DESCRIPTION} is not format {FORMAT}; export the model again with this release"
            )
        try:
            raw["hooks"] = tuple(Hook(**hook) for hook in raw["hooks"])
            raw["passthrough"] = tuple(raw.get("passthrough", ()))
            return cls(**raw)
        except (KeyError, TypeError) as error:
            raise BundleError(f"{folder / DESCRIPTION} lacks a field or has an unknown one: {error}") from error

    def write(self, folder: Path) -> None:
        """Writes `bundle.json`."""
        content = json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True)
        (folder / DESCRIPTION).write_text(content, encoding="utf-8")


@dataclass(frozen=True)
class ModelBundle:
    """A bundle on disk, checked for consistency. Item index i stands for `item_ids[i - 1]`; 0 is padding."""

    folder: Path
    version: str
    description: BundleDescription
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path, version: str) -> Self:
        """Reads a bundle folder; BundleError names the file and the value that is wrong."""
        description = BundleDescription.read(folder)
        for name in (TRUNK, HEAD, *([TRUNK_POSITIONS] if description.hooks[0].all_positions else [])):
            if not (folder / name).is_file():
                raise BundleError(f"the bundle {description.name!r} in {folder} has no {name}; export it again")
        ids, titles = read_items(folder)
        if len(ids) != description.n_items:
            raise BundleError(
                f"{DESCRIPTION} of {description.name!r} says {description.n_items} items, {ITEMS} has {len(ids)}"
            )
        bundle = cls(folder, version, description, ids, titles)
        if description.head == "dot_product":
            bundle._head_tensors  # noqa: B018  (read now, so that a wrong shape fails at load)
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
        path = self.folder / HEAD_TENSORS
        if self.description.head == "opaque":
            return {}
        if not path.is_file():
            raise BundleError(
                f"the bundle {self.name!r} has a dot_product head but no {HEAD_TENSORS} with item_vectors"
            )
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise BundleError(f"{path} cannot be read as safetensors: {error}") from error
        rows = self.n_items + 1
        for name, shape in (("item_vectors", (rows, self.description.hooks[0].dim)), ("item_bias", (rows,))):
            tensor = tensors.get(name)
            if tensor is None and name == "item_bias":
                continue
            if tensor is None or tensor.shape != shape or tensor.dtype != np.float32:
                found = "missing" if tensor is None else f"{tensor.dtype} {tensor.shape}"
                raise BundleError(f"{HEAD_TENSORS} of {self.name!r}: {name} is {found}, expected float32 {shape}")
            tensor.flags.writeable = False
        return tensors

    @cached_property
    def _index(self) -> dict[str, int]:
        return {item: position for position, item in enumerate(self.item_ids, start=1)}

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
        index = self._index
        return np.fromiter((index[item] for item in ids if item in index), dtype=np.int64)

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
    (folder / ITEMS).write_text(content, encoding="utf-8")


def read_items(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids and titles of `items.json`; titles default to the ids."""
    raw = _read_json(folder / ITEMS)
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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"{path.parent} has no {path.name}; it is not a complete model bundle") from error
    except ValueError as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise BundleError(f"{path} holds a {type(raw).__name__}, expected a JSON object")
    return raw
