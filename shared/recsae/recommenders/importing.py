"""Brings in a model made elsewhere: a trunk/head pair of ONNX graphs with its items.

Nothing is believed: names, types and shapes of the graphs are compared with what serving needs, then the graphs are run
(`recsae.recommenders.conformance`) before the bundle is published. Splitting one graph into trunk and head is
`onnx_import`'s part.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recsae.recommenders.bundle import (
    HEAD,
    HEAD_TENSORS,
    ITEMS,
    TRUNK,
    TRUNK_POSITIONS,
    USERS,
    ModelBundle,
    publish_bundle,
    read_items,
    read_users,
    write_users,
)
from recsae.recommenders.conformance import verify_behaviour
from recsae.recommenders.description import DESCRIPTION, BundleDescription, BundleError, Hook, Inputs, RowKind
from recsae.recommenders.inputs import ATTRIBUTE, CANDIDATE, HISTORY, USER
from recsae.recommenders.runtime import OnnxRecommender
from recsae.recommenders.signatures import FLOATS, INTEGERS, Signature
from recsae.store.artifacts import ArtifactStore

_MASKS = {"exclude": 2, "candidates": 2, "k": 1}


@dataclass(frozen=True)
class Imported:
    """A published import; `notes` are things worth knowing that do not keep it from being served."""

    name: str
    version: str
    notes: tuple[str, ...]


def import_bundle(
    store: ArtifactStore,
    folder: Path,
    *,
    name: str | None = None,
    published_as: Callable[[str], str] = lambda user_id: user_id,
) -> Imported:
    """Checks the files of `folder`, runs them, and publishes them as a model bundle.

    Needs trunk.onnx, head.onnx and items.json (shapes and names: `recsae.recommenders.bundle`); trunk_positions.onnx,
    head.safetensors, users.json and bundle.json are used when present. What bundle.json leaves open is read from the
    graphs. `published_as` gives the pseudonym of a user id of users.json. BundleError names the file, what was found
    and what was expected.
    """
    description = describe(folder, name)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for file in (TRUNK, TRUNK_POSITIONS, HEAD, HEAD_TENSORS, ITEMS):
            if (folder / file).is_file():
                shutil.copyfile(folder / file, copy / file)
        if description.inputs.user:
            write_users(copy, [published_as(user) for user in read_users(folder)])
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
    trunk, head = Signature.read(folder / TRUNK), Signature.read(folder / HEAD)
    stated = BundleDescription.read(folder) if (folder / DESCRIPTION).is_file() else None
    chosen = name or (stated.name if stated else "")
    if not chosen:
        raise BundleError(f"{folder} has no {DESCRIPTION} with a name; give one, e.g. --name mine")
    inputs = _inputs(trunk, stated)
    all_positions = (folder / TRUNK_POSITIONS).is_file()
    hooks = _hooks(trunk, head, stated, all_positions)
    if all_positions:
        _check_positions(Signature.read(folder / TRUNK_POSITIONS), hooks)
    return BundleDescription(
        name=chosen,
        family=stated.family if stated else "imported",
        max_history=_max_history(trunk, stated) if inputs.history else (stated.max_history if stated else 1),
        n_items=len(read_items(folder)[0]),
        head="dot_product" if (folder / HEAD_TENSORS).is_file() else "opaque",
        hooks=hooks,
        passthrough=_passthrough(trunk, head, hooks[0].rows),
        metrics=stated.metrics if stated else {},
        inputs=inputs,
        n_users=_n_users(folder) if inputs.user else 0,
    )


def _inputs(trunk: Signature, stated: BundleDescription | None) -> Inputs:
    """What the trunk reads, by the names of its inputs; attributes as bundle.json describes them."""
    described = stated.inputs if stated else Inputs()
    attributes = {f"{ATTRIBUTE}{one.name}": one for one in described.attributes}
    known = {HISTORY, USER, CANDIDATE, *attributes}
    strange = sorted(set(trunk.inputs) - known)
    if strange:
        raise BundleError(
            f"{TRUNK} needs inputs {strange}; serving feeds it {HISTORY!r}, {USER!r}, {CANDIDATE!r} and the attributes "
            f"that {DESCRIPTION} describes, as '{ATTRIBUTE}NAME'"
        )
    for name, one in attributes.items():
        trunk.need("input", name, FLOATS if one.kind == "number" else INTEGERS, (1,))
    for name in {USER, CANDIDATE} & set(trunk.inputs):
        trunk.need("input", name, INTEGERS, (1,))
    if not {HISTORY, USER} & set(trunk.inputs) and not attributes:
        trunk.need("input", HISTORY, INTEGERS, (2,))
    return replace(described, history=HISTORY in trunk.inputs, user=USER in trunk.inputs)


def _n_users(folder: Path) -> int:
    if not (folder / USERS).is_file():
        raise BundleError(
            f"{TRUNK} reads users and {folder} has no {USERS} with their ids in the order of their indices"
        )
    return len(read_users(folder))


def _max_history(trunk: Signature, stated: BundleDescription | None) -> int:
    length = trunk.need("input", HISTORY, INTEGERS, (2,))[1]
    if stated and isinstance(length, int) and stated.max_history != length:
        raise BundleError(f"{DESCRIPTION} says max_history {stated.max_history}, {TRUNK} takes {length} items")
    if isinstance(length, int):
        return length
    if stated is None:
        raise BundleError(f"{TRUNK} leaves the history length open; state max_history in {DESCRIPTION}")
    return stated.max_history


def _hooks(
    trunk: Signature, head: Signature, stated: BundleDescription | None, all_positions: bool
) -> tuple[Hook, ...]:
    """The hooks bundle.json names, with sizes as the graphs have them; one called `sequence` where it names none."""
    *middle, dim = _activation_sizes(trunk, head)
    interests = middle[0] if middle else 1
    rows: RowKind = "pair" if CANDIDATE in trunk.inputs else "interest" if middle else "subject"
    named = stated.hooks if stated else (Hook("sequence", "user", dim, rows=rows, interests=interests),)
    if (named[0].rows, named[0].interests, named[0].dim) != (rows, interests, dim):
        raise BundleError(
            f"{DESCRIPTION} says hook {named[0].name!r} has {named[0].dim} numbers, {named[0].interests} rows per "
            f"{named[0].rows}; {TRUNK} gives {dim} numbers, {interests} rows per {rows}"
        )
    for hook in named[1:]:
        sizes = trunk.need("output", f"activation.{hook.name}", FLOATS, (len(middle) + 2,))[1:]
        if any(isinstance(size, int) and size != own for size, own in zip(sizes, [*middle, hook.dim], strict=True)):
            raise BundleError(f"{DESCRIPTION} says hook {hook.name!r} has {hook.dim} numbers, {TRUNK} gives {sizes}")
    return tuple(replace(hook, all_positions=all_positions) for hook in named)


def _activation_sizes(trunk: Signature, head: Signature) -> list[int]:
    """Sizes of an activation behind the batch, which either graph may leave open but not both."""
    given = trunk.need("output", "activation", FLOATS, (2, 3))[1:]
    taken = head.need("input", "activation", FLOATS, (2, 3))[1:]
    sizes = []
    for ours, theirs in zip(given, taken, strict=False):
        stated = {size for size in (ours, theirs) if isinstance(size, int)}
        sizes += [stated.pop()] if len(stated) == 1 else []
    if len(given) != len(taken) or len(sizes) != len(given):
        raise BundleError(
            f"{TRUNK} gives activations of {_shown(given)} numbers, {HEAD} takes {_shown(taken)}; both must state one "
            "size"
        )
    return sizes


def _shown(sizes: Sequence[object]) -> str:
    return " x ".join(str(size) for size in sizes)


def _passthrough(trunk: Signature, head: Signature, rows: RowKind) -> tuple[str, ...]:
    """Tensors the head needs beside the activation, all of which the trunk must give."""
    own = {"activation"}
    if rows == "pair":
        head.need("output", "score", FLOATS, (1, 2))
    else:
        own.update(_MASKS)
        for name, rank in _MASKS.items():
            head.need("input", name, INTEGERS, (rank,))
        head.need("output", "items", INTEGERS, (2,))
        head.need("output", "scores", FLOATS, (2,))
    needed = tuple(sorted(set(head.inputs) - own))
    missing = [name for name in needed if name not in trunk.outputs]
    if missing:
        raise BundleError(f"{HEAD} needs {missing}, which {TRUNK} does not give; it gives {sorted(trunk.outputs)}")
    return needed


def _check_positions(positions: Signature, hooks: Sequence[Hook]) -> None:
    positions.need("input", HISTORY, INTEGERS, (2,))
    rank = 4 if hooks[0].rows == "interest" else 3
    for at, hook in enumerate(hooks):
        name = f"activations.{hook.name}" if at else "activations"
        found = positions.need("output", name, FLOATS, (rank,))[-1]
        if isinstance(found, int) and found != hook.dim:
            raise BundleError(f"{TRUNK_POSITIONS} gives activations of {found} numbers, {TRUNK} of {hook.dim}")
