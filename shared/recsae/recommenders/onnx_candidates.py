"""Which tensors of a graph can be hooks, and which one to take.

A candidate has one vector per subject (or one per interest), the scores depend on it, and a product or a sum over its
numbers lies between: behind that there are only scores. The best one is the last that nothing else crosses beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recsae.errors import InvalidRequestError
from recsae.recommenders.onnx_graph import OnnxGraph, Size
from recsae.recommenders.onnx_observing import HISTORY_AXIS, TensorSeen
from recsae.recommenders.onnx_split import Cut, cut_at

_MIXES = {"MatMul", "Gemm", "Einsum", "Conv", "ReduceSum", "ReduceMean", "MatMulInteger", "FusedMatMul", "FusedGemm"}
_KEEPS_LINES = {
    "MatMul", "Gemm", "Add", "Sub", "Mul", "Div", "Neg", "Identity", "Cast", "Transpose", "Reshape", "Flatten",
    "Squeeze", "Unsqueeze", "Slice", "Gather", "ReduceSum", "ReduceMean", "Concat", "Dropout", "Pad", "Split",
    "FusedMatMul",
}  # fmt: skip
_ONE_VARYING = {"MatMul", "Gemm", "Mul", "Div", "FusedMatMul"}


@dataclass(frozen=True)
class Candidate:
    """A tensor a graph can be cut at. `crossing_numbers` per row; `linear` as the operators behind it say."""

    name: str
    dtype: str
    shape: tuple[Size, ...]
    operator: str
    crossing: tuple[str, ...]
    crossing_numbers: int
    linear: bool

    @property
    def interests(self) -> int:
        """Rows per subject where it has several, else 1."""
        return int(self.shape[1]) if len(self.shape) == 3 else 1


@dataclass(frozen=True)
class Suggestion:
    """The candidate to take, and why."""

    candidate: Candidate
    reason: str


def candidates(
    graph: OnnxGraph, seen: Mapping[str, TensorSeen], scores: str, max_history: int
) -> tuple[Candidate, ...]:
    """Every tensor the graph can be cut at, in the order in which they are computed."""
    found = []
    for at in sorted(graph.ancestors([scores])):
        node = graph.nodes[at]
        for name in node.output:
            if name not in seen or not is_activation(seen[name], max_history):
                continue
            if node.op_type == "Cast" and node.input[0] in seen and not seen[node.input[0]].is_float:
                continue  # a mask, not a vector
            if _is_before_a_product(graph, name, scores):
                try:
                    cut = cut_at(graph, seen, name, scores)
                except InvalidRequestError:
                    continue  # something beside it cannot cross
                found.append(_candidate(graph, seen, node.op_type, cut))
    return tuple(found)


def is_activation(seen: TensorSeen, max_history: int) -> bool:
    """Whether a tensor is [batch, d], or [batch, interests, d] with an axis that is not the history's."""
    if not (seen.is_float and seen.has_row_per_subject and seen.is_sized) or seen.shape[-1] == 1:
        return False
    rank = len(seen.shape)
    return rank == 2 or (rank == 3 and seen.shape[1] not in (1, max_history))


def has_places(seen: TensorSeen, max_history: int) -> bool:
    """Whether a tensor is [batch, history, d]: a vector per place, which can be read at the newest item's."""
    if len(seen.shape) != 3 or not (seen.is_float and seen.has_row_per_subject):
        return False
    _, places, dim = seen.shape
    return places in (max_history, HISTORY_AXIS) and isinstance(dim, int) and dim > 1


def suggestion(found: Sequence[Candidate]) -> Suggestion | None:
    """The last candidate that nothing crosses beside; where there is none, the last beside the fewest numbers."""
    if not found:
        return None
    whole = [one for one in found if not one.crossing]
    if whole:
        best = whole[-1]
        behind = (
            "the scores are a linear function of it"
            if best.linear
            else "what follows is not linear in it, so attribution goes by finite difference"
        )
        return Suggestion(
            best, f"{best.name} is the last tensor that everything the scores depend on goes through; {behind}."
        )
    fewest = min(one.crossing_numbers for one in found)
    best = [one for one in found if one.crossing_numbers == fewest][-1]
    return Suggestion(
        best,
        f"{best.name} is the last tensor with as little beside it that reaches the scores, too: {fewest} numbers per "
        "row. None carries everything, and steering there leaves the rest as it is.",
    )


def _candidate(graph: OnnxGraph, seen: Mapping[str, TensorSeen], operator: str, cut: Cut) -> Candidate:
    tensor = seen[cut.activation]
    numbers = sum(seen[name].numbers for name in cut.crossing)
    linear = not cut.crossing and _is_linear(graph, cut)
    return Candidate(cut.activation, tensor.dtype, tensor.shape, operator, cut.crossing, numbers, linear)


def _is_before_a_product(graph: OnnxGraph, name: str, scores: str) -> bool:
    between = graph.ancestors([scores], stop=frozenset([name])) & graph.descendants(name)
    return any(graph.nodes[at].op_type in _MIXES for at in between)


def _is_linear(graph: OnnxGraph, cut: Cut) -> bool:
    """Whether every operator behind the cut keeps sums and multiples: read off its type, tried out on import."""
    depends = {cut.activation}
    for at in sorted(cut.head - cut.shapes):
        node = graph.nodes[at]
        varying = [name for name in graph.reads(at) if name in depends]
        if not varying:
            continue
        if node.op_type == "Shape":
            continue
        if node.op_type not in _KEEPS_LINES or (node.op_type in _ONE_VARYING and len(varying) > 1):
            return False
        if node.op_type in ("Div", "Reshape", "Slice", "Gather") and varying != [node.input[0]]:
            return False
        depends.update(node.output)
    return True
