"""An ONNX graph read for surgery: which node makes a tensor, what depends on what, a new graph of some of its nodes.

Knows nothing of recommenders. Nodes are named by their place in the file, which ONNX keeps in an order of execution.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto, helper, inliner, version_converter

from recsae.errors import InvalidRequestError

# Our own nodes are written for these operator sets: from 13 on, axes are inputs.
_OLDEST_OPSET, _CONVERTED_TO = 13, 17

Size = int | str


@dataclass(frozen=True)
class InputType:
    """Type and axes of a graph's input; a free axis by its name, "?" where it has none."""

    element: int
    dims: tuple[Size, ...]

    @property
    def is_integer(self) -> bool:
        """True for whole numbers of any width."""
        return self.element in (TensorProto.INT64, TensorProto.INT32, TensorProto.INT16, TensorProto.INT8)

    @property
    def is_float(self) -> bool:
        """True for numbers of 16, 32 or 64 bits."""
        return self.element in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)

    def __str__(self) -> str:
        name = TensorProto.DataType.Name(self.element).lower()
        return f"{name} [{', '.join(str(size) for size in self.dims)}]"


class OnnxGraph:
    """A model with its main graph indexed by tensor. Nothing here changes the model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: Sequence[onnx.NodeProto] = tuple(model.graph.node)
        self._reads = tuple(tuple(_reads(node)) for node in self.nodes)
        self.producer = {name: at for at, node in enumerate(self.nodes) for name in node.output if name}
        self.initializers = {one.name: one for one in model.graph.initializer}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a file, its functions written out and its operators at set 13 or later; InvalidRequestError if not."""
        try:
            model = onnx.load(str(path))
            if model.functions:
                model = inliner.inline_local_functions(model)
            opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
            if 0 < opset < _OLDEST_OPSET:
                model = version_converter.convert_version(model, _CONVERTED_TO)
        except (DecodeError, OSError, RuntimeError, ValueError) as error:
            raise InvalidRequestError(f"{path} cannot be read as ONNX: {error}") from error
        if not model.graph.node:
            raise InvalidRequestError(f"{path} holds no ONNX graph with operators; export the model again")
        return cls(model)

    @cached_property
    def inputs(self) -> Mapping[str, InputType]:
        """What has to be fed, in order."""
        return {value.name: _type_of(value) for value in self.model.graph.input if value.name not in self.initializers}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in order."""
        return tuple(value.name for value in self.model.graph.output)

    @cached_property
    def names(self) -> frozenset[str]:
        """Every tensor there is, those inside branches and bodies included."""
        return frozenset(self.inputs) | frozenset(self.initializers) | frozenset(_written(self.nodes))

    @cached_property
    def varying(self) -> frozenset[str]:
        """Tensors that depend on an input, the inputs among them."""
        found = set(self.inputs)
        for at, node in enumerate(self.nodes):
            if any(name in found for name in self._reads[at]):
                found.update(name for name in node.output if name)
        return frozenset(found)

    @cached_property
    def from_sizes(self) -> frozenset[str]:
        """Tensors that depend on the sizes of inputs and on nothing else of them: the same for any row."""
        found: set[str] = set()
        for at, node in enumerate(self.nodes):
            varying = self.varying_reads(at)
            if varying and (node.op_type in ("Shape", "Size") or all(name in found for name in varying)):
                found.update(name for name in node.output if name)
        return frozenset(found)

    def reads(self, at: int) -> tuple[str, ...]:
        """Tensors a node reads, those its branches and bodies read from outside included."""
        return self._reads[at]

    def varying_reads(self, at: int) -> tuple[str, ...]:
        """Those of them that depend on an input, each once."""
        return tuple(dict.fromkeys(name for name in self._reads[at] if name in self.varying))

    def ancestors(self, names: Iterable[str], stop: frozenset[str] = frozenset()) -> frozenset[int]:
        """Nodes the tensors are made by; none of what makes a tensor in `stop`."""
        found: set[int] = set()
        waiting = [name for name in names if name not in stop]
        while waiting:
            at = self.producer.get(waiting.pop())
            if at is not None and at not in found:
                found.add(at)
                waiting.extend(name for name in self._reads[at] if name not in stop)
        return frozenset(found)

    def descendants(self, name: str) -> frozenset[int]:
        """Nodes that depend on a tensor."""
        reached, found = {name}, set()
        for at, node in enumerate(self.nodes):
            if not reached.isdisjoint(self._reads[at]):
                found.add(at)
                reached.update(node.output)
        return frozenset(found)

    def with_outputs(
        self, outputs: Iterable[onnx.ValueInfoProto], more: Iterable[onnx.NodeProto] = ()
    ) -> onnx.ModelProto:
        """The same model with other outputs, and nodes put behind its own."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        model.graph.node.extend(more)
        del model.graph.output[:]
        model.graph.output.extend(outputs)
        return model

    def with_free_axes(self, axes: Mapping[str, Mapping[int, Size]]) -> OnnxGraph:
        """The same graph with other sizes of its inputs, by input and axis; shapes stated elsewhere are forgotten."""
        model = self.with_outputs(untyped(name) for name in self.outputs)
        del model.graph.value_info[:]
        for value in model.graph.input:
            for axis, size in axes.get(value.name, {}).items():
                dim = value.type.tensor_type.shape.dim[axis]
                if isinstance(size, int):
                    dim.dim_value = size
                else:
                    dim.dim_param = size
        return OnnxGraph(model)

    def part(
        self,
        nodes: Iterable[int],
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        *,
        before: Sequence[onnx.NodeProto] = (),
        after: Sequence[onnx.NodeProto] = (),
        constants: Sequence[onnx.TensorProto] = (),
        names: Mapping[str, str],
        name: str,
    ) -> onnx.ModelProto:
        """A model of some nodes between own ones; `names` says what tensors of this graph are called there."""
        chosen = [renamed(self.nodes[at], names) for at in sorted(nodes)]
        taken = {read for node in [*before, *chosen, *after] for read in _reads(node)}
        kept = []
        for original, tensor in self.initializers.items():
            called = names.get(original, original)
            if called in taken:
                copy = onnx.TensorProto()
                copy.CopyFrom(tensor)
                copy.name = called
                kept.append(copy)
        sparse = [one for one in self.model.graph.sparse_initializer if one.values.name in taken]
        graph = helper.make_graph(
            [*before, *chosen, *after], name, inputs, outputs, [*kept, *constants], sparse_initializer=sparse
        )
        return helper.make_model(
            graph, producer_name="recsae", ir_version=self.model.ir_version, opset_imports=self.model.opset_import
        )


def renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy of a node, and of all in its branches and bodies, with tensors under other names."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for side in (copy.input, copy.output):
        side[:] = [names.get(name, name) for name in side]
    for attribute in copy.attribute:
        for graph in _graphs(attribute):
            inner = [renamed(one, names) for one in graph.node]
            del graph.node[:]
            graph.node.extend(inner)
            for value in (*graph.input, *graph.output):
                value.name = names.get(value.name, value.name)
            for tensor in graph.initializer:
                tensor.name = names.get(tensor.name, tensor.name)
    return copy


def untyped(name: str) -> onnx.ValueInfoProto:
    """An output whose type onnxruntime infers."""
    return onnx.ValueInfoProto(name=name)


def _type_of(value: onnx.ValueInfoProto) -> InputType:
    tensor = value.type.tensor_type
    return InputType(tensor.elem_type, tuple(dim.dim_param or dim.dim_value or "?" for dim in tensor.shape.dim))


def _graphs(attribute: AttributeProto) -> list[onnx.GraphProto]:
    if attribute.type == AttributeProto.GRAPH:
        return [attribute.g]
    return list(attribute.graphs)


def _reads(node: onnx.NodeProto) -> Iterable[str]:
    """Names a node reads: its inputs, and what its branches and bodies read without making it."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in _graphs(attribute):
            own = {*(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
            own.update(name for inner in graph.node for name in inner.output)
            read = [name for inner in graph.node for name in _reads(inner)]
            yield from (name for name in [*read, *(value.name for value in graph.output)] if name not in own)


def _written(nodes: Iterable[onnx.NodeProto]) -> Iterable[str]:
    for node in nodes:
        yield from node.output
        for attribute in node.attribute:
            for graph in _graphs(attribute):
                yield from (value.name for value in graph.input)
                yield from (tensor.name for tensor in graph.initializer)
                yield from _written(graph.node)
