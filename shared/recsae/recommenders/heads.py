"""Heads written operator by operator: activation -> scores -> masks -> the best k items. ONNX alone, no torch.

Index 0 and `exclude` become -inf; with candidates everything else does too; TopK, lower index first among equal scores.
Heads that torch exports (pairs) and running any of them are elsewhere (`export`, `runtime`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
_IR = 8


def head_graph(vectors: NDArray[np.float32], bias: NDArray[np.float32]) -> onnx.ModelProto:
    """The head of a dot-product model: vectors float32 [n_items + 1, d], bias float32 [n_items + 1], row 0 padding.

    scores = activation . vectors + bias.
    """
    scoring = [helper.make_node("Gemm", ["activation", "item_vectors", "item_bias"], ["raw"], transB=1)]
    return _ranking(scoring, _item_constants(vectors, bias), ["batch", vectors.shape[1]])


def interest_head_graph(vectors: NDArray[np.float32], bias: NDArray[np.float32], interests: int) -> onnx.ModelProto:
    """The head of a multi-interest model: the interest that suits an item best gives its score.

    activation float32 [batch, interests, d]; scores = max over interests of activation_i . vectors + bias. Memory is
    batch x interests x items.
    """
    constants = [
        *_item_constants(vectors, bias),
        constant("a_row_each", [-1, vectors.shape[1]], np.int64),
        constant("by_interest", [-1, interests, len(vectors)], np.int64),
    ]
    scoring = [
        helper.make_node("Reshape", ["activation", "a_row_each"], ["rows"]),
        helper.make_node("Gemm", ["rows", "item_vectors", "item_bias"], ["row_scores"], transB=1),
        helper.make_node("Reshape", ["row_scores", "by_interest"], ["interest_scores"]),
        helper.make_node("ReduceMax", ["interest_scores"], ["raw"], axes=[1], keepdims=0),
    ]
    return _ranking(scoring, constants, ["batch", interests, vectors.shape[1]])


def _item_constants(vectors: NDArray[np.float32], bias: NDArray[np.float32]) -> list[onnx.TensorProto]:
    return [constant("item_vectors", vectors, np.float32), constant("item_bias", bias, np.float32)]


@dataclass(frozen=True)
class Masking:
    """Operators that make `items` and `scores` of "raw" float32 [batch, n_items + 1], `exclude`, `candidates`, `k`."""

    nodes: tuple[onnx.NodeProto, ...]
    constants: tuple[onnx.TensorProto, ...]


def masking() -> Masking:
    """What stands behind the scores in every head that ranks items, written for operator sets 13 and later."""
    constants = [
        constant("minus_infinity", [-np.inf], np.float32),
        constant("nothing", [0.0], np.float32),
        constant("one_column_in_front", [0, 1, 0, 0], np.int64),
        constant("padding", 0, np.int64),
        constant("none", 0, np.int64),
        constant("second_axis", 1, np.int64),
    ]
    nodes = [
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
            ["scores", "items"],
            then_branch=top_k_branch(_candidates_only(), "candidates_only", "k"),
            else_branch=top_k_branch([], "allowed", "k"),
        ),
    ]
    return Masking(tuple(nodes), tuple(constants))


def _ranking(
    scoring: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto], activation: Sequence[int | str]
) -> onnx.ModelProto:
    """`scoring` makes "raw" [batch, n_items + 1] of "activation"; here it is masked and its best k are taken."""
    behind = masking()
    return ranking_model([*scoring, *behind.nodes], [*constants, *behind.constants], activation)


def ranking_model(
    nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto], activation: Sequence[int | str]
) -> onnx.ModelProto:
    """A checked model of a head's nodes: an activation of that shape and what is asked -> `items` and `scores`."""
    graph = helper.make_graph(
        nodes,
        "head",
        [
            helper.make_tensor_value_info("activation", TensorProto.FLOAT, activation),
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
        graph, producer_name="recsae", ir_version=_IR, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    onnx.checker.check_model(model)
    return model


def top_k_branch(nodes: Sequence[onnx.NodeProto], scores: str, k: str) -> onnx.GraphProto:
    """Nodes and the best `k` of what they make; in a branch, because all scores would be copied on leaving one."""
    best, places = f"{scores}_best", f"{scores}_places"
    top = helper.make_node("TopK", [scores, k], [best, places], axis=1, largest=1, sorted=1)
    outputs = [(best, TensorProto.FLOAT), (places, TensorProto.INT64)]
    return helper.make_graph(
        [*nodes, top], f"best_of_{scores}", [], [helper.make_tensor_value_info(*one, None) for one in outputs]
    )


def _candidates_only() -> list[onnx.NodeProto]:
    """-inf wherever `candidates` does not name the item; 0 + score leaves the scores of candidates as they were."""
    return [
        helper.make_node("Shape", ["allowed"], ["allowed_shape"]),
        helper.make_node("Expand", ["minus_infinity", "allowed_shape"], ["shut"]),
        helper.make_node("Expand", ["nothing", "candidates_shape"], ["openings"]),
        helper.make_node("ScatterElements", ["shut", "candidates", "openings"], ["mask"], axis=1),
        helper.make_node("Add", ["allowed", "mask"], ["candidates_only"]),
    ]


def constant(name: str, value: ArrayLike, dtype: type) -> onnx.TensorProto:
    """A named constant of a graph."""
    return numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype).reshape(np.shape(value)), name)
