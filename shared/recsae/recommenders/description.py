"""What a model bundle says about itself: hooks, inputs, sizes; `bundle.json`.

Not here: the bundle's other files (`bundle`) and the graphs (`runtime`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

from recsae.errors import InvalidRequestError
from recsae.store.files import write_atomic

FORMAT = 2
_READ_FORMATS = (1, FORMAT)
DESCRIPTION = "bundle.json"

Side = Literal["user", "item"]
HeadKind = Literal["dot_product", "opaque"]
# One row per subject, per interest of a subject, or per subject and candidate.
RowKind = Literal["subject", "interest", "pair"]
AttributeKind = Literal["category", "number"]


class BundleError(InvalidRequestError):
    """A bundle's files are missing, unreadable or contradict each other."""


@dataclass(frozen=True)
class Hook:
    """A place where activations can be read: `dim` numbers per row, `interests` rows per subject where `rows` says so.

    Only the first hook of a model can be steerable: its head goes on from there.
    """

    name: str
    side: Side
    dim: int
    steerable: bool = True
    all_positions: bool = True
    rows: RowKind = "subject"
    interests: int = 1


@dataclass(frozen=True)
class AttributeInput:
    """An attribute of the user or the request that the trunk reads: the graph's input `attribute.<name>`.

    A category comes as int64 index, i for `values[i - 1]` and 0 for any other value or none; a number as float32,
    `default` where it is not known.
    """

    name: str
    kind: AttributeKind = "category"
    values: tuple[str, ...] = ()
    default: float = 0.0

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Index of each value of a category, from 1."""
        return {value: place for place, value in enumerate(self.values, start=1)}


@dataclass(frozen=True)
class Inputs:
    """What the trunk reads. `empty_history` = a subject without a known item can be answered, too (cold start)."""

    history: bool = True
    user: bool = False
    attributes: tuple[AttributeInput, ...] = ()
    empty_history: bool = False

    @property
    def history_alone(self) -> bool:
        """True when a history is all the trunk reads."""
        return self.history and not self.user and not self.attributes


@dataclass(frozen=True)
class BundleDescription:
    """What `bundle.json` says. `metrics` are figures from training, for people; nothing computes with them.

    `n_users` > 0 where the trunk reads the user: index i stands for id i - 1 of `users.json`, 0 for anybody else.
    """

    name: str
    family: str
    max_history: int
    n_items: int
    head: HeadKind
    hooks: tuple[Hook, ...]
    passthrough: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    inputs: Inputs = Inputs()
    n_users: int = 0

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
            if hook.rows not in get_args(RowKind) or (hook.rows == "interest") != (hook.interests > 1):
                raise BundleError(
                    f"{DESCRIPTION} of {self.name!r}: hook {hook} needs rows of {get_args(RowKind)}, and two interests "
                    "or more for interest alone"
                )
        if len({hook.name for hook in self.hooks}) < len(self.hooks):
            raise BundleError(f"{DESCRIPTION} of {self.name!r} has two hooks of one name; give each its own")
        if any(hook.steerable for hook in self.hooks[1:]):
            raise BundleError(f"{DESCRIPTION} of {self.name!r}: only the first hook can be steerable")
        if len({(hook.rows, hook.interests) for hook in self.hooks}) > 1:
            raise BundleError(f"{DESCRIPTION} of {self.name!r}: all hooks of a model need rows of one kind")
        if self.head == "dot_product" and self.hooks[0].rows != "subject":
            raise BundleError(f"{DESCRIPTION} of {self.name!r}: a dot_product head needs one row per subject")
        if self.inputs.user != (self.n_users > 0):
            raise BundleError(f"{DESCRIPTION} of {self.name!r}: a trunk that reads users needs n_users, and only that")
        if not self.inputs.history and any(hook.all_positions for hook in self.hooks):
            raise BundleError(f"{DESCRIPTION} of {self.name!r}: a trunk that reads no history has no positions of one")
        for one in self.inputs.attributes:
            if one.kind not in get_args(AttributeKind):
                raise BundleError(f"{DESCRIPTION} of {self.name!r}: {one} needs a kind of {get_args(AttributeKind)}")
        if not (self.inputs.history or self.inputs.user or self.inputs.attributes):
            raise BundleError(f"{DESCRIPTION} of {self.name!r}: the trunk reads nothing; name its inputs")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads `bundle.json`; BundleError says which field is wrong."""
        raw = read_json(folder / DESCRIPTION)
        if raw.pop("format", None) not in _READ_FORMATS:
            raise BundleError(
                f"{folder / DESCRIPTION} is not format {FORMAT}; export the model again with this release"
            )
        try:
            raw["hooks"] = tuple(Hook(**hook) for hook in raw["hooks"])
            raw["passthrough"] = tuple(raw.get("passthrough", ()))
            raw["inputs"] = _inputs(raw.get("inputs", {}))
            return cls(**raw)
        except (KeyError, TypeError) as error:
            raise BundleError(f"{folder / DESCRIPTION} lacks a field or has an unknown one: {error}") from error

    def write(self, folder: Path) -> None:
        """Writes `bundle.json`."""
        content = json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True)
        write_atomic(folder / DESCRIPTION, content.encode())


def _inputs(raw: Mapping[str, Any]) -> Inputs:
    attributes = tuple(
        AttributeInput(**{**one, "values": tuple(one.get("values", ()))}) for one in raw.get("attributes", ())
    )
    return Inputs(**{**raw, "attributes": attributes})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; BundleError when the file is not there or is none."""
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"{path.parent} has no {path.name}; it is not a complete model bundle") from error
    except ValueError as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise BundleError(f"{path} holds a {type(raw).__name__}, expected a JSON object")
    return raw
