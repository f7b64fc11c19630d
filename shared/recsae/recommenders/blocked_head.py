"""The head of a large catalogue: dot products, masks and best k block by block, then the best k of the blocks' best.

Exact, not approximate: every item is scored by the same operator as in the whole head (`heads`), each block gives its
best k by the same rule, and whoever is among the best k of all is among the best k of its block. Blocks stand in the
order of the indices, so of equal scores the lower index comes first here too. Scores of one block at a time are held:
they stay in the processor's cache, and memory does not grow with the catalogue. ONNX alone, no torch.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from recsae.recommenders.graph import COLUMNS_AT_ONCE
from recsae.recommenders.heads import constant, head_graph, ranking_model, top_k_branch

BLOCK = 32_768
"""Columns of a block, one of which takes what a mask names in other blocks."""


BLOCKED_FROM = 131_072
"""Columns beyond which blocks are used. At d = 64 on one core they save 16 to 22 % of the time in batches of 32, which
is where a busy server is, and cost 6 to 17 % in batches of 1 and 8; with fewer columns, whole is faster at every batch
(`python -m benchmarks.catalogue`)."""


def dot_product_head(vectors: NDArray[np.float32], bias: NDArray[np.float32]) -> onnx.ModelProto:
    """The head of a dot-product model, whole or in blocks, whichever suits the catalogue; the answers are the same."""
    return blocked_head_graph(vectors, bias) if len(vectors) > BLOCKED_FROM else head_graph(vectors, bias)


def blocked_head_graph(vectors: NDArray[np.float32], bias: NDArray[np.float32], block: int = BLOCK) -> onnx.ModelProto:
    """The head of a dot-product model: vectors float32 [n_items + 1, d], bias float32 [n_items + 1], row 0 padding.

    Same inputs, outputs, items and scores, to the bit, as `heads.head_graph`.
    """
    size = block - 1
    starts = range(0, len(vectors), size)
    constants = [
        constant("minus_infinity", [-np.inf], np.float32),
        constant("nothing", [0.0], np.float32),
        constant("elsewhere", -1, np.int64),
        constant("none", 0, np.int64),
        constant("second_axis", 1, np.int64),
    ]
    nodes = [
        helper.make_node("Shape", ["exclude"], ["exclude_shape"]),
        helper.make_node("Expand", ["minus_infinity", "exclude_shape"], ["shut_scores"]),
        helper.make_node("Shape", ["candidates"], ["candidates_shape"]),
        helper.make_node("Gather", ["candidates_shape", "second_axis"], ["candidate_count"]),
        helper.make_node("Greater", ["candidate_count", "none"], ["has_candidates"]),
    ]
    for number, start in enumerate(starts):
        rows = slice(start, start + size)
        constants += _block_constants(number, start, vectors[rows], bias[rows])
        nodes += _block_nodes(number)
    numbers = range(len(starts))
    nodes += [
        helper.make_node("Concat", [f"scores_{number}" for number in numbers], ["best_scores"], axis=1),
        helper.make_node("Concat", [f"items_{number}" for number in numbers], ["best_items"], axis=1),
        helper.make_node("TopK", ["best_scores", "k"], ["scores", "places"], axis=1, largest=1, sorted=1),
        helper.make_node("GatherElements", ["best_items", "places"], ["items"], axis=1),
    ]
    model = ranking_model(nodes, constants, ["batch", vectors.shape[1]])
    helper.set_model_props(model, {COLUMNS_AT_ONCE: str(block)})
    return model


def _block_constants(
    number: int, start: int, vectors: NDArray[np.float32], bias: NDArray[np.float32]
) -> list[onnx.TensorProto]:
    """The items of a block, and behind them a column whose score is -inf whatever the activation."""
    with_end = np.concatenate([vectors, np.zeros_like(vectors[:1])])
    shut = np.append(bias, np.float32(-np.inf))
    if start == 0:  # the padding's row never scores
        with_end[0], shut[0] = 0, -np.inf
    return [
        constant(f"vectors_{number}", with_end, np.float32),
        constant(f"bias_{number}", shut, np.float32),
        constant(f"start_{number}", start, np.int64),
        constant(f"end_{number}", len(vectors), np.int64),
        constant(f"most_{number}", [len(vectors)], np.int64),
    ]


def _block_nodes(number: int) -> list[onnx.NodeProto]:
    """The block's best k, at most as many as it has items: `scores_i`, and `items_i` as indices of the catalogue."""

    def of_block(name: str) -> str:
        return f"{name}_{number}"

    def places(named: str, out: str) -> list[onnx.NodeProto]:
        # Items of other blocks go to the last column, from below as place -1: Gemm has made it -inf.
        return [
            helper.make_node("Sub", [named, of_block("start")], [of_block(f"{out}_from_start")]),
            helper.make_node("Clip", [of_block(f"{out}_from_start"), "elsewhere", of_block("end")], [of_block(out)]),
        ]

    then = [
        *places("candidates", "open"),
        helper.make_node("Shape", [of_block("allowed")], [of_block("allowed_shape")]),
        helper.make_node("Expand", ["minus_infinity", of_block("allowed_shape")], [of_block("all_shut")]),
        helper.make_node("Expand", ["nothing", "candidates_shape"], [of_block("openings")]),
        helper.make_node(
            "ScatterElements",
            [of_block("all_shut"), of_block("open"), of_block("openings")],
            [of_block("mask")],
            axis=1,
        ),
        helper.make_node("Add", [of_block("allowed"), of_block("mask")], [of_block("candidates_only")]),
    ]
    return [
        helper.make_node("Min", ["k", of_block("most")], [of_block("k")]),
        helper.make_node("Gemm", ["activation", of_block("vectors"), of_block("bias")], [of_block("raw")], transB=1),
        *places("exclude", "shut"),
        helper.make_node(
            "ScatterElements", [of_block("raw"), of_block("shut"), "shut_scores"], [of_block("allowed")], axis=1
        ),
        helper.make_node(
            "If",
            ["has_candidates"],
            [of_block("scores"), of_block("places")],
            then_branch=top_k_branch(then, of_block("candidates_only"), of_block("k")),
            else_branch=top_k_branch([], of_block("allowed"), of_block("k")),
        ),
        helper.make_node("Add", [of_block("places"), of_block("start")], [of_block("items")]),
    ]
