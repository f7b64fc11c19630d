"""Makes a model bundle of one foreign ONNX graph: cut at a tensor, adapted to our inputs and outputs, checked.

Publishing it is `importing.import_bundle`'s part; what the graph is, `onnx_study` finds out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import save_file

from recsae.errors import InvalidRequestError
from recsae.recommenders.bundle import HEAD, HEAD_TENSORS, TRUNK, ModelBundle, write_items, write_users
from recsae.recommenders.description import BundleDescription
from recsae.recommenders.inputs import made_up_inputs
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
from recsae.recommenders.onnx_hooks import hooks_at
from recsae.recommenders.onnx_inputs import inputs_read
from recsae.recommenders.onnx_observing import save
from recsae.recommenders.onnx_split import cut_at
from recsae.recommenders.onnx_strangers import embedded, for_strangers, mean_user
from recsae.recommenders.onnx_study import Study
from recsae.recommenders.onnx_trunk import TrunkParts, names_there, trunk
from recsae.recommenders.runtime import OnnxRecommender

# A head within this of activation . vector + bias is one; `conformance` asks for the same.
_DOT_TOLERANCE = 1e-4
_ROWS_TRIED = 64


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
    chosen = hooks_at(study, activations)
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
        tuple(chosen),
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
        save(trunk(for_strangers(trunk_parts), mean_user(recommender)), out / TRUNK)
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


def _opened(folder: Path, description: BundleDescription) -> OnnxRecommender:
    description.write(folder)
    return OnnxRecommender(ModelBundle.load(folder, version="unpublished"))


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
    activations = embedded(recommender, made_up_inputs(recommender.bundle, _ROWS_TRIED))
    found = as_dot_product(path, activations, columns.n_items, _DOT_TOLERANCE)
    path.unlink()
    if found is None:
        return description
    save_file({"item_vectors": found.vectors, "item_bias": found.bias}, out / HEAD_TENSORS)
    return replace(description, head="dot_product")
