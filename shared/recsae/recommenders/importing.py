"""Brings in a model made elsewhere: a trunk/head pair of ONNX graphs with its items.

Nothing is believed: names, types and shapes of the graphs are compared with what serving needs, then the graphs are run
(`recsae.recommenders.conformance`) before the bundle is published. Splitting one graph into trunk and head is not here.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recsae.recommenders.bundle import (
    HEAD,
    HEAD_TENSORS,
    ITEMS,
    TRUNK,
    TRUNK_POSITIONS,
    ModelBundle,
    publish_bundle,
    read_items,
)
from recsae.recommenders.conformance import verify_behaviour
from recsae.recommenders.description import DESCRIPTION, BundleDescription, BundleError, Hook
from recsae.recommenders.graph import open_session
from recsae.recommenders.runtime import OnnxRecommender
from recsae.store.artifacts import ArtifactStore

_FLOAT, _INT = "tensor(float)", "tensor(int64)"
_HEAD_INPUTS = {"exclude": _INT, "candidates": _INT, "k": _INT}


@dataclass(frozen=True)
class Imported:
    """A published import; `notes` are things worth knowing that do not keep it from being served."""

    name: str
    version: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Signature:
    """Inputs and outputs of a graph: name -> (type, shape); a dimension is a number or, when free, text or None."""

    file: str
    inputs: Mapping[str, tuple[str, Sequence[Any]]]
    outputs: Mapping[str, tuple[str, Sequence[Any]]]

    @classmethod
    def read(cls, path: Path) -> _Signature:
        session = open_session(path, threads=1)
        sides = [
            {v.name: (v.type, v.shape) for v in values} for values in (session.get_inputs(), session.get_outputs())
        ]
        return cls(path.name, *sides)

    def need(self, side: str, name: str, kind: str, rank: int) -> Sequence[Any]:
        """Shape of an input or output; BundleError unless it is there with this type and number of dimensions."""
        values = self.inputs if side == "input" else self.outputs
        if name not in values:
            raise BundleError(f"{self.file} has no {side} {name!r}, only {sorted(values)}; rename it in the graph")
        found, shape = values[name]
        if found != kind or len(shape) != rank:
            raise BundleError(
                f"{self.file}: {side} {name!r} is {found} {shape}, expected {kind} with {rank} dimensions"
            )
        if rank > 1 and isinstance(shape[0], int):
            raise BundleError(
                f"{self.file}: {side} {name!r} has a fixed batch of {shape[0]}; export it with a free batch"
            )
        return shape


def import_bundle(store: ArtifactStore, folder: Path, *, name: str | None = None) -> Imported:
    """Checks the files of `folder`, runs them, and publishes them as a model bundle.

    Needs trunk.onnx, head.onnx and items.json (shapes and names: `recsae.recommenders.bundle`); trunk_positions.onnx,
    head.safetensors and bundle.json are used when present. What bundle.json leaves open is read from the graphs.
    BundleError names the file, what was found and what was expected.
    """
    description = describe(folder, name)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for file in (TRUNK, TRUNK_POSITIONS, HEAD, HEAD_TENSORS, ITEMS):
            if (folder / file).is_file():
                shutil.copyfile(folder / file, copy / file)
        description.write(copy)
        recommender = OnnxRecommender(ModelBundle.load(copy, version="unpublished"))
        notes = verify_behaviour(recommender)
        version = publish_bundle(store, copy)
    return Imported(description.name, version, notes)


def describe(folder: Path, name: str | None = None) -> BundleDescription:
    """The description of the graphs in `folder`, checked against bundle.json where there is one."""
    for file in (TRUNK, HEAD):
        if not (folder / file).is_file():
            raise BundleError(f"{folder} has no {file}; an import needs {TRUNK}, {HEAD} and {ITEMS}")
    trunk, head = _Signature.read(folder / TRUNK), _Signature.read(folder / HEAD)
    stated = BundleDescription.read(folder) if (folder / DESCRIPTION).is_file() else None
    chosen = name or (stated.name if stated else "")
    if not chosen:
        raise BundleError(f"{folder} has no {DESCRIPTION} with a name; give one, e.g. --name mine")
    max_history = _max_history(trunk, stated)
    dim = _dim(trunk, head)
    passthrough = _passthrough(trunk, head)
    all_positions = (folder / TRUNK_POSITIONS).is_file()
    if all_positions:
        _check_positions(_Signature.read(folder / TRUNK_POSITIONS), dim)
    hook = replace(stated.hooks[0] if stated else Hook("sequence", "user", dim), all_positions=all_positions)
    if hook.dim != dim:
        raise BundleError(f"{DESCRIPTION} says hook {hook.name!r} has {hook.dim} numbers, {TRUNK} gives {dim}")
    return BundleDescription(
        name=chosen,
        family=stated.family if stated else "imported",
        max_history=max_history,
        n_items=len(read_items(folder)[0]),
        head="dot_product" if (folder / HEAD_TENSORS).is_file() else "opaque",
        hooks=(hook,),
        passthrough=passthrough,
        metrics=stated.metrics if stated else {},
    )


def _max_history(trunk: _Signature, stated: BundleDescription | None) -> int:
    length = trunk.need("input", "history", _INT, 2)[1]
    if set(trunk.inputs) != {"history"}:
        raise BundleError(f"{TRUNK} needs inputs {sorted(trunk.inputs)}; serving feeds it 'history' alone")
    if stated and isinstance(length, int) and stated.max_history != length:
        raise BundleError(f"{DESCRIPTION} says max_history {stated.max_history}, {TRUNK} takes {length} items")
    if isinstance(length, int):
        return length
    if stated is None:
        raise BundleError(f"{TRUNK} leaves the history length open; state max_history in {DESCRIPTION}")
    return stated.max_history


def _dim(trunk: _Signature, head: _Signature) -> int:
    given = trunk.need("output", "activation", _FLOAT, 2)[1]
    taken = head.need("input", "activation", _FLOAT, 2)[1]
    dims = {dim for dim in (given, taken) if isinstance(dim, int)}
    if len(dims) != 1:
        raise BundleError(
            f"{TRUNK} gives activations of {given} numbers, {HEAD} takes {taken}; both must state one size"
        )
    return int(dims.pop())


def _passthrough(trunk: _Signature, head: _Signature) -> tuple[str, ...]:
    for name, kind in _HEAD_INPUTS.items():
        head.need("input", name, kind, 1 if name == "k" else 2)
    head.need("output", "items", _INT, 2)
    head.need("output", "scores", _FLOAT, 2)
    needed = tuple(sorted(set(head.inputs) - {"activation", *_HEAD_INPUTS}))
    missing = [name for name in needed if name not in trunk.outputs]
    if missing:
        raise BundleError(f"{HEAD} needs {missing}, which {TRUNK} does not give; it gives {sorted(trunk.outputs)}")
    return needed


def _check_positions(positions: _Signature, dim: int) -> None:
    positions.need("input", "history", _INT, 2)
    found = positions.need("output", "activations", _FLOAT, 3)[2]
    if isinstance(found, int) and found != dim:
        raise BundleError(f"{TRUNK_POSITIONS} gives activations of {found} numbers, {TRUNK} of {dim}")
