"""Quantile bands: how many firings lie below p50, up to p95, up to p99 and above, and one random row of each.

The strongest firings flatter a label; what it looks like in the middle and at the weak end belongs to the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.dictionary import ConceptArrays
from recsae.concepts.firings import Firings


@dataclass(frozen=True)
class Bands:
    """Four bands per latent.

    `edges` float32 [3, w] are the values between them, `largest` float32 [w] the end of the last; `count` int64 [w, 4]
    firings, `example` int64 [w, 4] a row and `value` float32 [w, 4] its value (-1 and 0 in an empty band).
    """

    edges: NDArray[np.float32]
    largest: NDArray[np.float32]
    count: NDArray[np.int64]
    example: NDArray[np.int64]
    value: NDArray[np.float32]


def strength_bands(firings: Firings, arrays: ConceptArrays, seed: int = 0) -> Bands:
    """Bands of all latents; the examples are drawn evenly, by `seed`."""
    edges = np.stack([arrays.p50, arrays.p95, arrays.p99])
    matrix, latents = firings.by_latent, firings.latents()
    band = (matrix.data[None, :] > edges[:, latents]).sum(axis=0)
    cells = latents.astype(np.int64) * 4 + band
    count = np.bincount(cells, minlength=firings.width * 4).reshape(-1, 4)
    # A random order, then the first of each cell: an even draw without a loop.
    shuffled = np.random.default_rng(seed).permutation(len(cells))
    found, first = np.unique(cells[shuffled], return_index=True)
    example = np.full(firings.width * 4, -1, np.int64)
    value = np.zeros(firings.width * 4, np.float32)
    example[found] = matrix.indices[shuffled[first]]
    value[found] = matrix.data[shuffled[first]]
    largest = np.zeros(firings.width, np.float32)
    np.maximum.at(largest, latents, matrix.data)
    return Bands(edges, largest, count.astype(np.int64), example.reshape(-1, 4), value.reshape(-1, 4))
