"""Exports a SASRec as a model bundle: trunk and head as ONNX, items, item vectors, description.

The trunk comes from torch; the head (scores, masks, TopK) is written operator by operator, so that its masking is in
plain sight. `export_sasrec` runs the files it wrote and compares them with torch before it returns.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from torch import Tensor, nn

from recsae.errors import FailedPreconditionError
from recsae.recommenders.bundle import HEAD, HEAD_TENSORS, TRUNK, TRUNK_POSITIONS, ModelBundle, write_items
from recsae.recommenders.description import BundleDescription, Hook
from recsae.recommenders.runtime import OnnxRecommender
from recsae.recommenders.sasrec import Sasrec

HOOK = "sequence"
_TRUNK_OPSET = 17
_HEAD_OPSET = 17
_HEAD_IR = 8
_TOLERANCE = 1e-5
_CHECKED_BATCHES = (1, 2, 7, 64)


class Items(Protocol):
    """The item table, position i = item index i + 1 (`recsae.datasets.schema.ItemTable` is one)."""

    @property
    def ids(self) -> Sequence[str]:
        """Item ids."""

    @property
    def titles(self) -> Sequence[str]:
        """Titles for people."""


def export_sasrec(
    model: Sasrec, items: Items, out: Path, name: str, metrics: Mapping[str, float] | None = None
) -> ModelBundle:
    """Writes the bundle into the folder `out`, checks it against torch and returns it, still unpublished.

    FailedPreconditionError when the exported graph differs from torch by more than 1e-5 relative to its scale.
    """
    out.mkdir(parents=True, exist_ok=True)
    shape = model.shape
    model = model.eval()
    _export_graph(_Last(model), out / TRUNK, shape.max_history, "activation")
    _export_graph(_EveryPosition(model), out / TRUNK_POSITIONS, shape.max_history, "activations")
    vectors, bias = model.items.weight.detach().numpy(), model.item_bias.detach().numpy()
    onnx.save(head_graph(vectors, bias), out / HEAD)
    save_file({"item_vectors": vectors, "item_bias": bias}, out / HEAD_TENSORS)
    write_items(out, items.ids, items.titles)
    hook = Hook(HOOK, side="user", dim=shape.dim)
    BundleDescription(
        name, "sasrec", shape.max_history, shape.n_items, "dot_product", (hook,), metrics=metrics or {}
    ).write(out)
    bundle = ModelBundle.load(out, version="unpublished")
    check_against_torch(model, OnnxRecommender(bundle))
    return bundle


def head_graph(vectors: NDArray[np.float32], bias: NDArray[np.float32]) -> onnx.ModelProto:
    """The head of a dot-product model: vectors float32 [n_items + 1, d], bias float32 [n_items + 1], row 0 padding.

    scores = activation . vectors + bias; index 0 and `exclude` become -inf; with candidates everything else does too;
    TopK, lower index first among equal scores.
    """
    constants = [
        _constant("item_vectors", vectors, np.float32),
        _constant("item_bias", bias, np.float32),
        _constant("minus_infinity", [-np.inf], np.float32),
        _constant("nothing", [0.0], np.float32),
        _constant("one_column_in_front", [0, 1, 0, 0], np.int64),
        _constant("padding", 0, np.int64),
        _constant("none", 0, np.int64),
        _constant("second_axis", 1, np.int64),
    ]
    nodes = [
        helper.make_node("Gemm", ["activation", "item_vectors", "item_bias"], ["raw"], transB=1),
        # The padding index joins the exclusions, so index 0 is masked whatever the caller excludes.
        helper.make_node("Pad", ["exclude", "one_column_in_front", "padding"], ["excluded"]),
        helper.make_node("Shape", ["excluded"], ["excluded_shape"]),
        helper.make_node("Expand", ["minus_infinity", "excluded_shape"], ["excluded_scores"]),
        helper.make_node("ScatterElements", ["raw", "excluded", "excluded_scores"], ["allowed"], axis=1),
        helper.make_node("Shape", ["candidates"], ["candidates_shape"]),
        helper.make_node("Gather", ["candidates_shape", "second_axis"], ["candidate_count"]),
        helper.make_node("Greater", ["candidate_count", "none"], ["has_candidates"]),
        helper.make_node(
            "If",
            ["has_candidates"],
            ["masked"],
            then_branch=_candidates_only(),
            else_branch=helper.make_graph(
                [helper.make_node("Identity", ["allowed"], ["all_items"])], "every_item", [], [_float("all_items")]
            ),
        ),
        helper.make_node("TopK", ["masked", "k"], ["scores", "items"], axis=1, largest=1, sorted=1),
    ]
    graph = helper.make_graph(
        nodes,
        "head",
        [
            helper.make_tensor_value_info("activation", TensorProto.FLOAT, ["batch", vectors.shape[1]]),
            helper.make_tensor_value_info("exclude", TensorProto.INT64, ["batch", "excluded"]),
            helper.make_tensor_value_info("candidates", TensorProto.INT64, ["batch", "candidates"]),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("items", TensorProto.INT64, ["batch", "k"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", "k"]),
        ],
        constants,
    )
    model = helper.make_model(
        graph, producer_name="recsae", ir_version=_HEAD_IR, opset_imports=[helper.make_opsetid("", _HEAD_OPSET)]
    )
    onnx.checker.check_model(model)
    return model


def _candidates_only() -> onnx.GraphProto:
    """-inf wherever `candidates` does not name the item; 0 + score leaves the scores of candidates as they were."""
    nodes = [
        helper.make_node("Shape", ["allowed"], ["allowed_shape"]),
        helper.make_node("Expand", ["minus_infinity", "allowed_shape"], ["shut"]),
        helper.make_node("Expand", ["nothing", "candidates_shape"], ["openings"]),
        helper.make_node("ScatterElements", ["shut", "candidates", "openings"], ["mask"], axis=1),
        helper.make_node("Add", ["allowed", "mask"], ["candidates_only"]),
    ]
    return helper.make_graph(nodes, "candidates_only", [], [_float("candidates_only")])


def _constant(name: str, value: ArrayLike, dtype: type) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype).reshape(np.shape(value)), name)


def _float(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


class _Last(nn.Module):
    def __init__(self, model: Sasrec) -> None:
        super().__init__()
        self.model = model

    def forward(self, history: Tensor) -> Tensor:
        # The reshape changes nothing; it makes the graph state its size, which an import compares with the head's.
        return self.model.last(history).reshape(-1, self.model.shape.dim)


class _EveryPosition(nn.Module):
    def __init__(self, model: Sasrec) -> None:
        super().__init__()
        self.model = model

    def forward(self, history: Tensor) -> Tensor:
        """Zero at padding: a row that means nothing must not look like an activation."""
        activations: Tensor = self.model(history) * (history > 0).to(torch.float32)[:, :, None]
        return activations.reshape(-1, self.model.shape.max_history, self.model.shape.dim)


def _export_graph(module: nn.Module, path: Path, max_history: int, output: str) -> None:
    example = torch.ones((2, max_history), dtype=torch.int64)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The TorchScript exporter is deprecated and ten times faster; the network keeps to operators it handles.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(),
                (example,),
                str(path),
                dynamo=False,
                opset_version=_TRUNK_OPSET,
                input_names=["history"],
                output_names=[output],
                dynamic_axes={"history": {0: "batch"}, output: {0: "batch"}},
            )
    finally:
        logger.setLevel(level)


def check_against_torch(model: Sasrec, recommender: OnnxRecommender) -> float:
    """Largest difference between torch and the exported graphs, relative to the largest value; raises above 1e-5."""
    random = np.random.default_rng(0)
    worst = 0.0
    for size in _CHECKED_BATCHES:
        lengths = random.integers(1, recommender.max_history + 1, size=size)
        histories = recommender.pad([random.integers(1, recommender.n_items + 1, size=length) for length in lengths])
        with torch.no_grad():
            expected: NDArray[Any] = model.last(torch.from_numpy(histories)).numpy()
            positions: NDArray[Any] = model(torch.from_numpy(histories)).numpy() * (histories > 0)[:, :, None]
        for found, wanted in (
            (recommender.embed(histories).activation, expected),
            (recommender.embed_positions(histories), positions),
        ):
            worst = max(worst, float(np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max())))
    if not worst <= _TOLERANCE:
        raise FailedPreconditionError(
            f"the exported {recommender.name} differs from torch by {worst:.1e}, more than {_TOLERANCE:.0e}; "
            f"export it with another opset or report the operator"
        )
    return worst
