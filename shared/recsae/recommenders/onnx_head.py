"""Heads of foreign graphs: the nodes behind the cut, their scores in our columns, masks and TopK as in every head.

Not here: whether such a head is a dot product (`onnx_dot_product`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from recsae.errors import InvalidRequestError
from recsae.recommenders.heads import masking
from recsae.recommenders.onnx_graph import OnnxGraph, Size
from recsae.recommenders.onnx_inputs import OWN
from recsae.recommenders.onnx_observing import TensorSeen
from recsae.recommenders.onnx_split import Cut, stated_shape

ACTIVATION, RAW, SCORE = "activation", "raw", "score"


@dataclass(frozen=True)
class Columns:
    """Where the graph's scores have our items: item i in column i - 1 + `first`, of `count` columns in all."""

    n_items: int
    count: int
    first: int


def columns_of(count: int, n_items: int, first_item: int) -> Columns:
    """Columns of a graph with `count` scores; InvalidRequestError unless they are one per item, or one more.

    One more is the padding's: in front where the graph counts items from 1, else behind.
    """
    if count not in (n_items, n_items + 1):
        raise InvalidRequestError(
            f"the scores have {count} columns, and there are {n_items} items: they must be {n_items}, or {n_items + 1} "
            "with one for padding; give the items in the order of the columns with --items, or name the tensor with a "
            "score per item with --scores"
        )
    return Columns(n_items, count, 1 if count > n_items and first_item == 1 else 0)


@dataclass(frozen=True)
class HeadParts:
    """A graph, its cut, and how the new head is to be put together."""

    graph: OnnxGraph
    seen: Mapping[str, TensorSeen]
    cut: Cut
    scores: str
    batch: Size
    names: Mapping[str, str]

    def inputs(self) -> list[onnx.ValueInfoProto]:
        """The activation, and what crosses beside it."""
        return [self._input(self.cut.activation, ACTIVATION)] + [
            self._input(name, self.names.get(name, name)) for name in self.cut.crossing
        ]

    def _input(self, original: str, name: str) -> onnx.ValueInfoProto:
        tensor = self.seen[original]
        return helper.make_tensor_value_info(name, tensor.element, [self.batch, *stated_shape(tensor)])

    def model(
        self,
        inputs: list[onnx.ValueInfoProto],
        outputs: list[onnx.ValueInfoProto],
        after: list[onnx.NodeProto],
        constants: list[onnx.TensorProto],
    ) -> onnx.ModelProto:
        """The head's own nodes, and others behind them."""
        start = helper.make_node("Identity", [ACTIVATION], [self.names.get(self.cut.activation, self.cut.activation)])
        shapes, stated = self._stated_shapes()
        return self.graph.part(
            self.cut.head - self.cut.shapes, inputs, outputs,
            before=[start, *shapes], after=after, constants=[*stated, *constants], names=self.names, name="head",
        )  # fmt: skip

    def _stated_shapes(self) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Shapes asked for of tensors that stay in the trunk: the activation's batch and sizes known already."""
        if not self.cut.shapes:
            return [], []
        ends = [numpy_helper.from_array(np.array([at], np.int64), f"{OWN}at{at}") for at in (0, 1)]
        nodes = [
            helper.make_node("Shape", [ACTIVATION], [f"{OWN}shape"]),
            helper.make_node("Slice", [f"{OWN}shape", f"{OWN}at0", f"{OWN}at1"], [f"{OWN}batch"]),
        ]
        for at in sorted(self.cut.shapes):
            node = self.graph.nodes[at]
            rest = np.array(stated_shape(self.seen[node.input[0]]), np.int64)
            ends.append(numpy_helper.from_array(rest, f"{OWN}rest{at}"))
            made = self.names.get(node.output[0], node.output[0])
            nodes.append(helper.make_node("Concat", [f"{OWN}batch", f"{OWN}rest{at}"], [made], axis=0))
        return nodes, ends


def raw_head(parts: HeadParts, columns: Columns) -> onnx.ModelProto:
    """Activation and what crosses -> `raw` float32 [batch, n_items + 1], column 0 of no meaning."""
    nodes, constants = _our_columns(parts, columns)
    return parts.model(parts.inputs(), [_float(RAW, [parts.batch, columns.n_items + 1])], nodes, constants)


def item_head(parts: HeadParts, columns: Columns) -> onnx.ModelProto:
    """The head of a bundle: `raw_head`, masks, TopK."""
    nodes, constants = _our_columns(parts, columns)
    behind = masking()
    integers: dict[str, list[Size]] = {
        "exclude": [parts.batch, "excluded"],
        "candidates": [parts.batch, "candidates"],
        "k": [1],
    }
    asked = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in integers.items()]
    items = helper.make_tensor_value_info("items", TensorProto.INT64, [parts.batch, "k"])
    return parts.model(
        [*parts.inputs(), *asked], [items, _float("scores", [parts.batch, "k"])], [*nodes, *behind.nodes],
        [*constants, *behind.constants],
    )  # fmt: skip


def pair_head(parts: HeadParts) -> onnx.ModelProto:
    """The head of a model of pairs: activation and what crosses -> `score` float32 [batch]."""
    flat = numpy_helper.from_array(np.array([-1], np.int64), f"{OWN}flat")
    nodes = [
        helper.make_node("Cast", [_scores(parts)], [f"{OWN}wide"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", [f"{OWN}wide", flat.name], [SCORE]),
    ]
    return parts.model(parts.inputs(), [_float(SCORE, [parts.batch])], nodes, [flat])


def reserved_names() -> frozenset[str]:
    """Names our heads and trunks use, under which a foreign graph's tensors cannot stay."""
    behind = masking()
    own = {name for node in behind.nodes for name in (*node.input, *node.output)}
    inner = {name for node in behind.nodes for branch in node.attribute for one in branch.g.node for name in one.output}
    return frozenset(own | inner | {ACTIVATION, RAW, SCORE, "scores", "items", "history", "user", "candidate"})


def _our_columns(parts: HeadParts, columns: Columns) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Scores of any width in float32, item i in column i: cut at the ends, and a column put in front where needed."""
    n, first, wide = columns.n_items, columns.first, f"{OWN}wide"
    if (columns.count, first) == (n + 1, 1):
        return [helper.make_node("Cast", [_scores(parts)], [RAW], to=TensorProto.FLOAT)], []
    named = {"begin": [first], "end": [first + n], "axis": [1], "in_front": [0, 1, 0, 0]}
    constants = [numpy_helper.from_array(np.array(value, np.int64), f"{OWN}{name}") for name, value in named.items()]
    nodes = [
        helper.make_node("Cast", [_scores(parts)], [wide], to=TensorProto.FLOAT),
        helper.make_node("Slice", [wide, *(f"{OWN}{name}" for name in ("begin", "end", "axis"))], [f"{OWN}items"]),
        helper.make_node("Pad", [f"{OWN}items", f"{OWN}in_front"], [RAW]),
    ]
    return nodes, constants


def _scores(parts: HeadParts) -> str:
    return parts.names.get(parts.scores, parts.scores)


def _float(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
