"""How many rows a foreign graph takes at once: any number, whatever it states, or one number alone, whatever it states.

Exporters write the batch of their example into shapes inside the graph, or a fixed one where any would do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recsae.errors import InvalidRequestError
from recsae.recommenders.onnx_graph import OnnxGraph
from recsae.recommenders.onnx_observing import BATCH, Feed, TensorSeen, observe, runs_alike

# Batches of the examples graphs are exported with, which shapes inside may have kept.
_USUAL_EXAMPLES = (1, 2)


@dataclass(frozen=True)
class Settled:
    """A graph with the batch it takes (`batch` None: any): `original` otherwise as it came, and its tensors as seen."""

    original: OnnxGraph
    graph: OnnxGraph
    batch: int | None
    seen: Mapping[str, TensorSeen]
    notes: tuple[str, ...] = ()


def settle_batch(original: OnnxGraph, graph: OnnxGraph, feed: Feed, lengths: Sequence[int], output: str) -> Settled:
    """Tries the graph with any batch, then with the one it states or was exported with.

    `graph` is the original with a history of one length. Raises what onnxruntime raised where nothing works.
    """
    stated = _stated(original)
    if stated is None:
        try:
            return Settled(original, graph, None, observe(graph, feed, lengths, None))
        except Exception as error:  # onnxruntime raises its own classes straight from Exception
            settled = _with_example(original, graph, feed, lengths, output)
            if settled is None:
                raise error
            return settled
    free = _of_batch(graph, BATCH)
    if runs_alike(original, free, output, feed, lengths[0], stated):
        note = f"the graph states a batch of {stated} and works with any: it will be served with any"
        return Settled(original, free, None, observe(free, feed, lengths, None), (note,))
    note = f"the graph works with a batch of {stated} alone: it will be served in such pieces"
    return Settled(original, graph, stated, observe(graph, feed, lengths, stated), (note,))


def _with_example(
    original: OnnxGraph, graph: OnnxGraph, feed: Feed, lengths: Sequence[int], output: str
) -> Settled | None:
    """The graph with a batch exporters usually take for their example, None where it works with none of them."""
    for batch in _USUAL_EXAMPLES:
        fixed = _of_batch(graph, batch)
        try:
            seen = observe(fixed, feed, lengths, batch)
        except Exception:
            continue
        if output in seen and seen[output].has_row_per_subject:
            note = (
                f"the graph states that it takes any batch and takes {batch} alone, as its example had: it will be "
                "served in such pieces; export it with a batch that is free inside, too"
            )
            return Settled(_of_batch(original, batch), fixed, batch, seen, (note,))
    return None


def _of_batch(graph: OnnxGraph, batch: int | str) -> OnnxGraph:
    return graph.with_free_axes({name: {0: batch} for name in graph.inputs})


def _stated(graph: OnnxGraph) -> int | None:
    sizes = {kind.dims[0] for kind in graph.inputs.values() if kind.dims and isinstance(kind.dims[0], int)}
    if len(sizes) > 1:
        raise InvalidRequestError(f"the inputs have batches of {sorted(map(str, sizes))}; export the graph with one")
    return int(sizes.pop()) if sizes else None
