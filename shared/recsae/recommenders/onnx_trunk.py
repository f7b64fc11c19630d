"""Trunks of foreign graphs: our inputs, what makes the graph's own of them, its nodes before the cut, our outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from recsae.recommenders.inputs import USER
from recsae.recommenders.onnx_candidates import has_places
from recsae.recommenders.onnx_graph import OnnxGraph, Size
from recsae.recommenders.onnx_inputs import NEWEST, OWN, Conventions, adapter
from recsae.recommenders.onnx_observing import TensorSeen
from recsae.recommenders.onnx_roles import Role
from recsae.recommenders.onnx_split import Cut, stated_shape

Means = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class TrunkParts:
    """A graph, its cut, and how to put the trunk together. `outputs`: our name of an activation -> its own."""

    graph: OnnxGraph
    seen: Mapping[str, TensorSeen]
    cut: Cut
    roles: Sequence[Role]
    how: Conventions
    batch: Size
    names: Mapping[str, str]
    outputs: Mapping[str, str]

    def reads_newest(self, original: str) -> bool:
        """Whether a tensor has a row per place of the history, of which the newest item's is read."""
        return has_places(self.seen[original], self.how.max_history) and any(r.kind == "history" for r in self.roles)

    def nodes(self) -> frozenset[int]:
        """The graph's nodes that the trunk consists of."""
        return self.graph.ancestors([*self.outputs.values(), *self.cut.crossing])

    def roles_read(self) -> tuple[Role, ...]:
        """Inputs of the graph that the trunk reads."""
        read = {name for at in self.nodes() for name in self.graph.reads(at)} | set(self.cut.crossing)
        return tuple(role for role in self.roles if role.tensor in read)


def trunk(parts: TrunkParts, unknown: Means | None = None) -> onnx.ModelProto:
    """The trunk of a bundle. `unknown` has, by output, the activation of a user nobody knows, without the batch."""
    made = {role.tensor: parts.names.get(role.tensor, role.tensor) for role in parts.roles_read()}
    newest = any(parts.reads_newest(original) for original in parts.outputs.values())
    inputs = adapter(parts.roles, parts.how, parts.batch, made, newest=newest)
    after: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    outputs = []
    for name, original in parts.outputs.items():
        tensor, own = parts.seen[original], parts.names.get(original, original)
        shape = stated_shape(tensor)
        if parts.reads_newest(original):
            after.append(helper.make_node("GatherND", [own, NEWEST], [f"{OWN}newest.{name}"], batch_dims=1))
            own, shape = f"{OWN}newest.{name}", shape[1:]
        outputs.append(helper.make_tensor_value_info(name, tensor.element, [parts.batch, *shape]))
        if unknown is None:
            after.append(helper.make_node("Identity", [own], [name]))
        else:
            after += _where_known(own, name)
            value = unknown[name].astype(tensor.dtype)
            constants.append(numpy_helper.from_array(value, f"{OWN}unknown.{name}"))
            constants += _numbers({f"shape.{name}": [-1] + [1] * (len(tensor.shape) - 1)})
    if unknown is not None:
        constants += _numbers({"nobody": 0})
    for original in parts.cut.crossing:
        tensor = parts.seen[original]
        outputs.append(
            helper.make_tensor_value_info(
                parts.names.get(original, original), tensor.element, [parts.batch, *stated_shape(tensor)]
            )
        )
    return parts.graph.part(
        parts.nodes(), inputs.inputs, outputs,
        before=inputs.nodes, after=after, constants=[*inputs.constants, *constants], names=parts.names, name="trunk",
    )  # fmt: skip


def names_there(graph: OnnxGraph, reserved: frozenset[str]) -> dict[str, str]:
    """What tensors are called in our graphs: as they are, unless the name is taken by one of ours."""
    ours = (OWN, "activation.", "attribute.")
    taken = sorted(name for name in graph.names if name in reserved or name.startswith(ours))
    renamed = {}
    for name in taken:
        other = f"original.{name}"
        while other in graph.names:
            other = f"original.{other}"
        renamed[name] = other
    return renamed


def _where_known(own: str, name: str) -> list[onnx.NodeProto]:
    known, wide = f"{OWN}known.{name}", f"{OWN}known_wide.{name}"
    return [
        helper.make_node("Greater", [USER, f"{OWN}nobody"], [known]),
        helper.make_node("Reshape", [known, f"{OWN}shape.{name}"], [wide]),
        helper.make_node("Where", [wide, own, f"{OWN}unknown.{name}"], [name]),
    ]


def _numbers(named: Mapping[str, int | list[int]]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(value, np.int64), f"{OWN}{name}") for name, value in named.items()]
