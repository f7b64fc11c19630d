"""Runs a graph a few times to see the type and shape of every tensor in it, free axes by name.

What a graph states about its inner tensors is often missing or wrong; what they turn out to be is neither.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from recsae.errors import InvalidRequestError
from recsae.recommenders.graph import Graph, open_session
from recsae.recommenders.onnx_graph import OnnxGraph, Size, untyped

BATCH, HISTORY_AXIS = "batch", "history"
_SHAPE_OF = "recsae.shape_of/"
# Two batch sizes that few layers have by chance.
_BATCHES = (3, 5)
_ELEMENTS = {
    "tensor(float)": TensorProto.FLOAT,
    "tensor(float16)": TensorProto.FLOAT16,
    "tensor(double)": TensorProto.DOUBLE,
    "tensor(int64)": TensorProto.INT64,
    "tensor(int32)": TensorProto.INT32,
    "tensor(bool)": TensorProto.BOOL,
}

Feed = Callable[[int, int], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class TensorSeen:
    """A tensor as it turned out: ONNX type (0 = none that could cross a cut), sizes with free axes named."""

    element: int
    shape: tuple[Size, ...]

    @property
    def dtype(self) -> str:
        """Numpy's name of its type."""
        return str(helper.tensor_dtype_to_np_dtype(self.element))

    @property
    def is_float(self) -> bool:
        """True for numbers of 16 or 32 bits, which an activation or scores may have."""
        return self.element in (TensorProto.FLOAT, TensorProto.FLOAT16)

    @property
    def has_row_per_subject(self) -> bool:
        """True when the first axis is the batch, and no other grows with it: it can cross a cut."""
        others = all(isinstance(size, int) or size == HISTORY_AXIS for size in self.shape[1:])
        return bool(self.element and self.shape) and self.shape[0] == BATCH and others

    @property
    def is_sized(self) -> bool:
        """True when no axis but the first is free."""
        return all(isinstance(size, int) for size in self.shape[1:])

    @property
    def numbers(self) -> int:
        """Numbers of one row; of one item, where the history's axis is free."""
        return int(np.prod([size for size in self.shape[1:] if isinstance(size, int)], dtype=np.int64))

    def __str__(self) -> str:
        return f"[{', '.join(str(size) for size in self.shape)}]"


def observe(graph: OnnxGraph, feed: Feed, lengths: Sequence[int], batch: int | None) -> dict[str, TensorSeen]:
    """Every tensor that depends on an input, by name. `feed(rows, length)` gives the inputs.

    `lengths` are one or two history lengths, two where the graph leaves that axis open; `batch` is the only batch size
    the graph takes, None for any. InvalidRequestError when the graph does not run.
    """
    names = [
        name
        for node in graph.nodes
        if not node.op_type.startswith(("Sequence", "Optional", "SplitToSequence")) or node.op_type == "SequenceAt"
        for name in node.output
        if name in graph.varying
    ]
    shapes = [helper.make_node("Shape", [name], [f"{_SHAPE_OF}{name}"]) for name in (*graph.inputs, *names)]
    outputs = [untyped(name) for node in shapes for name in (*node.input, *node.output)]
    session = _open(graph.with_outputs([one for one in outputs if one.name not in graph.inputs], shapes))
    types = {value.name: _ELEMENTS.get(value.type, 0) for value in session.get_outputs()}
    types.update({name: kind.element for name, kind in graph.inputs.items()})
    wanted = [node.output[0] for node in shapes]
    rows = (batch,) if batch else _BATCHES
    runs = [session.run(wanted, dict(feed(size, lengths[0]))) for size in rows]
    longer = session.run(wanted, dict(feed(rows[0], lengths[1]))) if len(lengths) > 1 else runs[0]
    seen = {}
    for at, node in enumerate(shapes):
        name = node.input[0]
        sizes = _named(runs[0][at], runs[-1][at], longer[at], rows)
        if batch and name not in graph.from_sizes and sizes[:1] == (batch,):
            sizes = (BATCH, *sizes[1:])
        seen[name] = TensorSeen(types[name], sizes)
    return seen


def runs_alike(stated: OnnxGraph, freed: OnnxGraph, output: str, feed: Feed, length: int, batch: int) -> bool:
    """Whether a graph of a fixed batch gives the same with that axis freed, row for row."""
    inputs = feed(_BATCHES[1] * batch, length)
    try:
        together, apart = (run_once(graph, output, inputs) for graph in (freed, stated))
    except InvalidRequestError:
        return False
    return together.shape == apart.shape and np.allclose(together, apart, rtol=1e-4, atol=1e-5)


def run_once(graph: OnnxGraph, output: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """One tensor of a graph over all rows of its inputs; InvalidRequestError with onnxruntime's reason."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "graph.onnx"
        save(graph.with_outputs([untyped(output)]), path)
        try:
            return Graph(path, threads=1).run([output], inputs, len(next(iter(inputs.values()))))[0]
        except InvalidRequestError:
            raise
        except Exception as error:  # onnxruntime raises its own classes straight from Exception
            raise InvalidRequestError(f"the graph fails on its inputs: {error}") from error


def save(model: onnx.ModelProto, path: Path) -> None:
    """Writes a graph; InvalidRequestError when it is too large for one file."""
    try:
        onnx.save(model, str(path))
    except ValueError as error:
        raise InvalidRequestError(f"{path.name} cannot be written as one file of at most 2 GB: {error}") from error


def _open(model: onnx.ModelProto) -> Any:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "graph.onnx"
        save(model, path)
        return open_session(path, threads=1)


def _named(
    first: NDArray[np.int64], wider: NDArray[np.int64], longer: NDArray[np.int64], rows: tuple[int, ...]
) -> tuple[Size, ...]:
    """Sizes of one tensor; those that grow with the batch or the history are free. A fixed batch grows nowhere."""
    named: list[Size] = []
    for axis, size in enumerate(first.tolist()):
        if wider[axis] != size:
            times = size // rows[0]
            named.append(BATCH if size == rows[0] and wider[axis] == rows[-1] else f"{times} x {BATCH}")
        elif longer[axis] != size:
            named.append(HISTORY_AXIS)
        else:
            named.append(size)
    return tuple(named)
