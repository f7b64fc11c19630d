"""Makes a model bundle of one foreign ONNX graph: cut at a tensor, adapted to our inputs and outputs, checked.

Publishing it is `importing.import_bundle`'s part; what the graph is, `onnx_study` finds out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import save_file

from recsae.errors import InvalidRequestError
from recsae.recommenders.bundle import HEAD, HEAD_TENSORS, TRUNK, ModelBundle, write_items, write_users
from recsae.recommenders.description import BundleDescription, Hook, RowKind
from recsae.recommenders.inputs import ModelInputs, made_up_inputs
from recsae.recommenders.onnx_candidates import is_activation
from recsae.recommenders.onnx_check import Agreement, RealSubjects, compare
from recsae.recommenders.onnx_dot_product import as_dot_product
from recsae.recommenders.onnx_head import (
    ACTIVATION,
    Columns,
    HeadParts,
    columns_of,
    item_head,
    pair_head,
    raw_head,
    reserved_names,
)
from recsae.recommenders.onnx_inputs import inputs_read
from recsae.recommenders.onnx_observing import save
from recsae.recommenders.onnx_split import cut_at
from recsae.recommenders.onnx_study import Study
from recsae.recommenders.onnx_trunk import TrunkParts, names_there, trunk
from recsae.recommenders.runtime import OnnxRecommender

# A head within this of activation . vector + bias is one; `conformance` asks for the same.
_DOT_TOLERANCE = 1e-4
_ROWS_TRIED = 64
_USERS_AT_ONCE = 1_024


@dataclass(frozen=True)
class Names:
    """Name of the model, and what its indices stand for: position i is index i + 1. User ids as they are published."""

    model: str
    item_ids: Sequence[str]
    titles: Sequence[str]
    user_ids: Sequence[str] = ()


@dataclass(frozen=True)
class Built:
    """A bundle in a folder, not yet published, and what was found when it was compared with the original."""

    bundle: ModelBundle
    agreement: Agreement
    notes: tuple[str, ...]


def build_bundle(
    study: Study, activations: Mapping[str, str], names: Names, out: Path, real: RealSubjects | None = None
) -> Built:
    """Writes the bundle of a graph cut at the first of `activations` (hook name -> tensor) into the folder `out`.

    The others become read-only hooks. InvalidRequestError says what does not fit.
    """
    chosen = _checked(study, activations)
    first = next(iter(activations.values()))
    cut = cut_at(study.graph, study.seen, first, study.scores)
    called = names_there(study.graph, reserved_names())
    hooks = list(activations)
    outputs = {ACTIVATION if at == 0 else f"activation.{hook}": activations[hook] for at, hook in enumerate(hooks)}
    trunk_parts = TrunkParts(study.graph, study.seen, cut, study.roles, study.how, study.batch, called, outputs)
    reads = inputs_read(trunk_parts.roles_read())
    if reads.user and not names.user_ids:
        raise InvalidRequestError("the graph reads users: give their ids in the order of their indices with --users")
    head_parts = HeadParts(study.graph, study.seen, cut, study.scores, study.batch, called)
    columns = None if study.pairs else columns_of(study.columns, len(names.item_ids), study.how.first_item)
    description = BundleDescription(
        names.model, "imported", study.how.max_history, len(names.item_ids), "opaque",
        tuple(replace(hook, steerable=at == 0) for at, hook in enumerate(chosen)),
        passthrough=tuple(sorted(called.get(name, name) for name in cut.crossing)),
        inputs=reads, n_users=len(names.user_ids) if reads.user else 0,
    )  # fmt: skip
    save(trunk(trunk_parts), out / TRUNK)
    save(pair_head(head_parts) if columns is None else item_head(head_parts, columns), out / HEAD)
    write_items(out, names.item_ids, names.titles)
    if reads.user:
        write_users(out, names.user_ids)
    notes = list(study.notes)
    recommender = _opened(out, description)
    if reads.user and not (reads.history or reads.attributes or study.pairs or cut.crossing):
        save(trunk(_for_strangers(trunk_parts), _mean_user(recommender)), out / TRUNK)
        recommender = _opened(out, description)
        notes.append("a user the model does not know is answered for the mean of those it knows")
    elif reads.user:
        notes.append(f"a user the model does not know is read as its index {study.how.unknown_user}")
    if (study.pairs or reads.user or reads.attributes) and reads.history and _answers_empty_histories(recommender):
        description = replace(description, inputs=replace(reads, empty_history=True))
    if columns is not None and chosen[0].rows == "subject" and not cut.crossing:
        description = _with_vectors(description, recommender, raw_head(head_parts, columns), columns, out)
    recommender = _opened(out, description)
    agreement = compare(study, recommender, columns, real)
    return Built(recommender.bundle, agreement, tuple(notes))


def hook_names(activations: Sequence[str], stated: Sequence[str] = ()) -> dict[str, str]:
    """Hook name -> tensor, in order: as stated by texts `NAME=TENSOR`, else after the tensor."""
    named: dict[str, str] = {}
    for text in stated:
        name, found, tensor = text.partition("=")
        if not found or not re.fullmatch(r"\w[\w.-]{0,63}", name):
            raise InvalidRequestError(
                f"--hook {text!r} is not NAME=TENSOR, with a name of letters, digits, _, - and dots"
            )
        if tensor not in activations:
            raise InvalidRequestError(f"--hook {text!r} names no --activation; those are {', '.join(activations)}")
        named[tensor] = name
    result: dict[str, str] = {}
    for tensor in dict.fromkeys(activations):
        plain = re.sub(r"_output_\d+$", "", tensor)
        name = named.get(tensor) or re.sub(r"[^\w.-]+", "_", plain).strip("_.-")[:60] or "activation"
        while name in result:
            name += "_"
        result[name] = tensor
    return result


def _checked(study: Study, activations: Mapping[str, str]) -> list[Hook]:
    """A hook per tensor; InvalidRequestError for a tensor that is not there or is none of vectors per subject."""
    hooks = []
    for name, tensor in activations.items():
        if tensor not in study.graph.producer:
            raise InvalidRequestError(
                f"the graph makes no tensor {tensor!r}; run the command without --activation for a list"
            )
        seen = study.seen.get(tensor)
        if seen is None or not is_activation(seen, study.how.max_history):
            found = f"{seen.dtype} {seen}" if seen and seen.element else "no vector per subject"
            raise InvalidRequestError(
                f"{tensor!r} is {found}; an activation is float32 or float16 [batch, d], or [batch, interests, d]. Run "
                "the command without --activation for a list"
            )
        *interests, dim = (int(size) for size in seen.shape[1:])
        rows: RowKind = "pair" if study.pairs else "interest" if interests else "subject"
        if study.pairs and interests:
            raise InvalidRequestError(f"{tensor!r} is {seen}: a model of pairs has one vector per row; take another")
        hooks.append(Hook(name, "user", dim, True, False, rows, interests[0] if interests else 1))
    if len({(hook.rows, hook.interests) for hook in hooks}) > 1:
        shapes = "; ".join(f"{tensor} {study.seen[tensor]}" for tensor in activations.values())
        raise InvalidRequestError(f"activations of one model need rows of one kind, these are {shapes}")
    return hooks


def _opened(folder: Path, description: BundleDescription) -> OnnxRecommender:
    description.write(folder)
    return OnnxRecommender(ModelBundle.load(folder, version="unpublished"))


def _for_strangers(parts: TrunkParts) -> TrunkParts:
    """The same trunk, reading somebody it knows in place of a stranger: what comes out is replaced anyway."""
    return replace(parts, how=replace(parts.how, unknown_user=parts.how.first_user))


def _mean_user(recommender: OnnxRecommender) -> dict[str, np.ndarray]:
    """By output: the mean activation of all users, without the batch."""
    n_users, hooks = recommender.bundle.description.n_users, recommender.hooks
    sums: dict[str, np.ndarray] = {}
    for start in range(1, n_users + 1, _USERS_AT_ONCE):
        users = np.arange(start, min(start + _USERS_AT_ONCE, n_users + 1))
        inputs = ModelInputs(np.zeros((len(users), recommender.max_history), np.int64), users)
        for at, hook in enumerate(hooks):
            name = ACTIVATION if at == 0 else f"activation.{hook.name}"
            part = _run(recommender, inputs, hook.name).sum(axis=0, dtype=np.float64)
            sums[name] = sums.get(name, 0.0) + part
    return {name: (total / n_users).astype(np.float32) for name, total in sums.items()}


def _run(recommender: OnnxRecommender, inputs: ModelInputs, hook: str = "") -> np.ndarray:
    try:
        return recommender.embed(inputs, hook=hook).activation
    except InvalidRequestError:
        raise
    except Exception as error:  # onnxruntime raises its own classes straight from Exception
        raise InvalidRequestError(
            f"the graph fails on items 1..{recommender.n_items} and users 1..{recommender.bundle.description.n_users}: "
            f"{error}. If it counts from 0, say --first-index 0 or --first-user 0; if it knows fewer, shorten the lists"
        ) from error


def _answers_empty_histories(recommender: OnnxRecommender) -> bool:
    inputs = made_up_inputs(recommender.bundle, _ROWS_TRIED)
    nothing = replace(inputs, history=np.zeros_like(inputs.history))
    candidates = np.ones(len(inputs), np.int64) if recommender.hooks[0].rows == "pair" else None
    try:
        return bool(np.isfinite(recommender.embed(nothing, candidates=candidates).activation).all())
    except Exception:  # onnxruntime raises its own classes straight from Exception; the graph cannot do without
        return False


def _with_vectors(
    description: BundleDescription, recommender: OnnxRecommender, raw: onnx.ModelProto, columns: Columns, out: Path
) -> BundleDescription:
    """The description of a dot-product head, its vectors written, where the head turns out to be one."""
    path = out / "raw.onnx"
    save(raw, path)
    activations = _run(recommender, made_up_inputs(recommender.bundle, _ROWS_TRIED))
    found = as_dot_product(path, activations, columns.n_items, _DOT_TOLERANCE)
    path.unlink()
    if found is None:
        return description
    save_file({"item_vectors": found.vectors, "item_bias": found.bias}, out / HEAD_TENSORS)
    return replace(description, head="dot_product")
