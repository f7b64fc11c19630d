"""Cutting any graph at any tensor it can be cut at changes no score."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from recsae.errors import InvalidRequestError
from recsae.recommenders.graph import open_session
from recsae.recommenders.onnx_candidates import candidates, suggestion
from recsae.recommenders.onnx_graph import OnnxGraph
from recsae.recommenders.onnx_import import Names, build_bundle
from recsae.recommenders.onnx_observing import BATCH, TensorSeen
from recsae.recommenders.onnx_split import cut_at
from recsae.recommenders.onnx_study import Statements, study
from recsae.recommenders.runtime import OnnxRecommender

N_ITEMS, DIM, LENGTH = 9, 4, 3
IDS = [f"i{item}" for item in range(N_ITEMS)]
STEPS = ("Add", "Mul", "Relu", "Tanh", "MatMul", "gate", "join", "zeros", "branch", "reshape")


class Growing:
    """A graph that grows by steps, each on random tensors [batch, d] that are there already."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        table = self.constant(self.random.normal(size=(N_ITEMS + 1, DIM)).astype(np.float32))
        vectors = self.node("Gather", [table, "history"])
        # Two tensors to start from, so that some cuts need something beside them.
        self.pool = [
            self.node("ReduceMean", [vectors], axes=[1], keepdims=0),
            self.node("ReduceMax", [vectors], axes=[1], keepdims=0),
        ]

    def constant(self, value: NDArray[np.float32] | NDArray[np.int64]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def weights(self, rows: int, columns: int) -> str:
        return self.constant((self.random.normal(size=(rows, columns)) / np.sqrt(rows)).astype(np.float32))

    def grow(self, step: str) -> None:
        first, second = (self.pool[at] for at in self.random.integers(max(0, len(self.pool) - 3), len(self.pool), 2))
        if step in ("Add", "Mul"):
            made = self.node(step, [first, second])
        elif step in ("Relu", "Tanh"):
            made = self.node(step, [first])
        elif step == "MatMul":
            made = self.node("MatMul", [first, self.weights(DIM, DIM)])
        elif step == "gate":
            gate = self.node("Sigmoid", [self.node("MatMul", [first, self.weights(DIM, 1)])])
            made = self.node("Mul", [second, gate])
        elif step == "join":
            both = self.node("Concat", [first, second], axis=1)
            made = self.node("MatMul", [both, self.weights(2 * DIM, DIM)])
        elif step == "zeros":  # as exporters write torch.zeros_like: a shape, and a constant of it
            nothing = self.node("ConstantOfShape", [self.node("Shape", [first])])
            made = self.node("Add", [second, nothing])
        elif step == "reshape":  # to the batch of another tensor
            batch = self.node("Slice", [self.node("Shape", [first]), *map(self.constant, ENDS)])
            shape = self.node("Concat", [batch, self.constant(np.array([DIM]))], axis=0)
            made = self.node("Reshape", [second, shape])
        else:  # a branch that reads tensors from outside
            inside = f"inside{len(self.nodes)}"
            value = onnx.ValueInfoProto(name=inside)
            there = helper.make_graph([helper.make_node("Add", [first, second], [inside])], "there", [], [value])
            other = helper.make_graph([helper.make_node("Identity", [first], [inside])], "other", [], [value])
            made = self.node("If", [self.constant(np.array(True))], then_branch=there, else_branch=other)
        self.pool.append(made)

    def model(self) -> onnx.ModelProto:
        head = self.node("MatMul", [self.pool[-1], self.weights(DIM, N_ITEMS + 1)])
        self.nodes.append(helper.make_node("Identity", [head], ["scores"]))
        graph = helper.make_graph(
            self.nodes,
            "grown",
            [helper.make_tensor_value_info("history", TensorProto.INT64, ["n", LENGTH])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", N_ITEMS + 1])],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


ENDS = (np.array([0]), np.array([1]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(STEPS), min_size=1, max_size=6))
def test_trunk_and_head_of_any_candidate_score_as_the_whole(seed: int, steps: list[str]) -> None:
    growing = Growing(seed)
    for step in steps:
        growing.grow(step)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        onnx.save(growing.model(), str(path))
        studied = study(path, Statements())
        found = studied.candidates()
        assert found
        histories = np.array([[1, 2, 3], [9, 0, 0], [4, 4, 0], [7, 8, 0], [2, 0, 0]])
        expected = open_session(path, threads=1).run(["scores"], {"history": histories})[0][:, 1:]
        for at, candidate in enumerate(found):
            folder = Path(scratch) / str(at)
            folder.mkdir()
            built = build_bundle(studied, {"cut": candidate.name}, Names("grown", IDS, IDS), folder)
            assert bool(built.bundle.description.passthrough) == bool(candidate.crossing)
            if candidate.linear:
                assert built.bundle.description.head == "dot_product"
            recommender = OnnxRecommender(built.bundle)
            embedded = recommender.embed(histories)
            ranked = recommender.rank(embedded.activation, embedded.passthrough, k=N_ITEMS)
            scores = np.take_along_axis(expected, ranked.items - 1, axis=1)
            np.testing.assert_allclose(ranked.scores, scores, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def residual() -> OnnxGraph:
    """history -> x -> layer, x + layer -> scores."""
    growing = Growing(0)
    start = growing.pool[0]
    layer = growing.node("Tanh", [start])
    growing.pool.append(growing.node("Add", [start, layer]))
    return OnnxGraph(growing.model())


def seen_in(graph: OnnxGraph, **others: TensorSeen) -> dict[str, TensorSeen]:
    vector = TensorSeen(TensorProto.FLOAT, (BATCH, DIM))
    return {name: vector for name in graph.varying if name.startswith("t")} | others


def test_the_suggestion_is_the_last_tensor_that_nothing_crosses_beside() -> None:
    graph = residual()
    seen = seen_in(graph, scores=TensorSeen(TensorProto.FLOAT, (BATCH, N_ITEMS + 1)))
    found = candidates(graph, seen, "scores", LENGTH)
    chosen = suggestion(found)
    assert chosen
    assert graph.nodes[graph.producer[chosen.candidate.name]].op_type == "Add"
    assert "linear function" in chosen.reason
    assert {one.operator: len(one.crossing) for one in found}["Tanh"] == 1


def test_a_tensor_without_a_row_per_subject_that_cannot_be_made_again_is_refused_by_name() -> None:
    graph = residual()
    inner = graph.nodes[3].output[0]
    crossing = graph.nodes[1].output[0]
    whole = TensorSeen(TensorProto.FLOAT, (1, DIM))
    seen = seen_in(graph) | {crossing: whole, graph.nodes[0].output[0]: whole, "history": whole}
    with pytest.raises(InvalidRequestError, match=f"cut at '{inner}' loses information: .* also need 'history'"):
        cut_at(graph, seen, inner, "scores")


def test_scores_themselves_are_no_candidate() -> None:
    graph = residual()
    wide = TensorSeen(TensorProto.FLOAT, (BATCH, N_ITEMS + 1))
    product = graph.nodes[-2].output[0]
    names = {one.name for one in candidates(graph, seen_in(graph) | {product: wide, "scores": wide}, "scores", LENGTH)}
    assert names
    assert not {product, "scores"} & names
