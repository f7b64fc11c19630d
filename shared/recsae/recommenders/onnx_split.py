"""Where a graph is cut at a tensor: the nodes of either side, and what else has to cross.

Everything the scores take from the tensor stays behind it (head); everything else is made before it (trunk), and
crosses as it is: a residual, a gate. What crosses must have a row per subject; where it has none (the batch's size,
most often), what makes it goes into the head instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recsae.errors import InvalidRequestError
from recsae.recommenders.onnx_graph import OnnxGraph
from recsae.recommenders.onnx_observing import BATCH, TensorSeen


@dataclass(frozen=True)
class Cut:
    """A cut at `activation`. `head` are nodes of the head; `crossing` tensors it needs beside the activation.

    `shapes` are those nodes of the head that only ask for a shape the head can state by itself: of the activation's
    batch, and of fixed sizes.
    """

    activation: str
    head: frozenset[int]
    crossing: tuple[str, ...]
    shapes: frozenset[int]


def cut_at(graph: OnnxGraph, seen: Mapping[str, TensorSeen], activation: str, scores: str) -> Cut:
    """The cut at a tensor; InvalidRequestError when the scores do not depend on it or something cannot cross."""
    needed = graph.ancestors([scores])
    behind = needed & graph.descendants(activation)
    if graph.producer.get(scores) not in behind:
        raise InvalidRequestError(
            f"the scores {scores!r} do not depend on {activation!r}: a head that starts there would know nothing; "
            "run the command without --activation for a list of tensors that work"
        )
    made = {name for at in behind for name in graph.nodes[at].output} | {activation}
    tracer = _Tracer(graph, seen, activation, scores)
    for at in sorted(behind):
        for name in graph.varying_reads(at):
            if name not in made:
                tracer.bring(name)
    nodes = behind | tracer.pulled
    fixed = {name for at in nodes for name in graph.reads(at) if name not in graph.varying}
    return Cut(activation, nodes | graph.ancestors(fixed), tuple(sorted(tracer.crossing)), frozenset(tracer.shapes))


class _Tracer:
    """Decides for every tensor the head needs whether it crosses or is made behind the cut."""

    def __init__(self, graph: OnnxGraph, seen: Mapping[str, TensorSeen], activation: str, scores: str) -> None:
        self.graph, self.seen, self.activation, self.scores = graph, seen, activation, scores
        self.crossing: set[str] = set()
        self.pulled: set[int] = set()
        self.shapes: set[int] = set()

    def bring(self, name: str) -> None:
        """Makes a tensor available behind the cut."""
        waiting = [name]
        while waiting:
            one = waiting.pop()
            if one == self.activation or one in self.crossing:
                continue
            if one in self.seen and self.seen[one].has_row_per_subject:
                self.crossing.add(one)
                continue
            at = self.graph.producer.get(one)
            if at is None:
                raise InvalidRequestError(
                    f"a cut at {self.activation!r} loses information: the scores {self.scores!r} also need {one!r}, "
                    f"{self.seen.get(one, 'a tensor')}, which has no row per subject; cut at another tensor"
                )
            if at in self.pulled:
                continue
            self.pulled.add(at)
            if self._states_its_shape(at):
                self.shapes.add(at)
            else:
                waiting.extend(self.graph.varying_reads(at))

    def _states_its_shape(self, at: int) -> bool:
        node = self.graph.nodes[at]
        if node.op_type != "Shape" or node.attribute:
            return False
        subject = self.seen.get(node.input[0])
        return subject is not None and subject.has_row_per_subject


def stated_shape(seen: TensorSeen) -> tuple[int, ...]:
    """Sizes behind the batch of a tensor with a row per subject."""
    assert seen.shape[0] == BATCH
    return tuple(size for size in seen.shape[1:] if isinstance(size, int))
