"""Whether a foreign head is a dot product, found by trying.

The head at nothing and at each unit vector gives bias and vectors; real activations say whether they are all there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsae.recommenders.graph import Graph
from recsae.recommenders.onnx_head import ACTIVATION, RAW

# Rows of scores held at once.
_PROBED_AT_ONCE = 64


@dataclass(frozen=True)
class DotProduct:
    """Vectors float32 [n_items + 1, d] and bias float32 [n_items + 1], row 0 zero."""

    vectors: NDArray[np.float32]
    bias: NDArray[np.float32]


def as_dot_product(head: Path, activations: NDArray[np.float32], n_items: int, tolerance: float) -> DotProduct | None:
    """The vectors and bias of a raw head without anything crossing, None where it is no dot product.

    Scores of `activations` float32 [n, d], of their doubles and of their opposites, must be activation . vector + bias
    within `tolerance` of the largest.
    """
    graph = Graph(head, threads=1)

    def scores(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return graph.run([RAW], {ACTIVATION: rows}, len(rows))[0][:, 1:]

    dim = activations.shape[1]
    bias = np.zeros(n_items + 1, np.float32)
    vectors = np.zeros((n_items + 1, dim), np.float32)
    bias[1:] = scores(np.zeros((1, dim), np.float32))[0]
    for start in range(0, dim, _PROBED_AT_ONCE):
        units = np.eye(dim, dtype=np.float32)[start : start + _PROBED_AT_ONCE]
        vectors[1:, start : start + len(units)] = (scores(units) - bias[1:]).T
    if not (np.isfinite(vectors).all() and np.isfinite(bias).all()):
        return None
    for factor in (1.0, 2.0, -1.0):
        rows = np.float32(factor) * activations
        found = scores(rows)
        difference = np.abs(found - (rows @ vectors[1:].T + bias[1:])).max()
        if not difference <= tolerance * max(1.0, float(np.abs(found).max())):
            return None
    return DotProduct(vectors, bias)
