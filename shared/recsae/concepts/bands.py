"""Quantile bands: how many firings lie below p50, up to p95, up to p99 and above, and one random row of each.

The strongest firings flatter a label; what it looks like in the middle and at the weak end belongs to the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.dictionary import ConceptArrays
from recsae.concepts.evidence_buckets import keys_of, tops_of
from recsae.concepts.evidence_draws import first_of_runs
from recsae.concepts.evidence_sums import EvidenceSums

BANDS = 4


@dataclass(frozen=True)
class Bands:
    """Four bands per latent.

    `edges` float32 [3, w] are the values between them: the quantiles, moved up to where their bucket ends (less than
    1/64), so that the rest is exact. `largest` float32 [w] is the end of the last; `count` int64 [w, 4] firings;
    `example` int64 [w, 4] one of them, drawn evenly, as a position in the sums' `per_bucket` (-1 in an empty band).
    """

    edges: NDArray[np.float32]
    largest: NDArray[np.float32]
    count: NDArray[np.int64]
    example: NDArray[np.int64]


def strength_bands(sums: EvidenceSums, arrays: ConceptArrays) -> Bands:
    """Bands of all latents on construction rows."""
    buckets, width = sums.construction, sums.width
    latents, drawn = buckets.latents, sums.draws["per_bucket"]
    every = np.arange(width, dtype=np.int64)
    edge_keys = np.stack([keys_of(every, edge) for edge in (arrays.p50, arrays.p95, arrays.p99)])
    cells = latents * BANDS + (buckets.key[None, :] > edge_keys[:, latents]).sum(axis=0)
    count = np.zeros(width * BANDS, np.int64)
    np.add.at(count, cells, buckets.count)
    # The smallest hash of a band is that of one bucket; buckets and their examples are in the same order.
    order = np.lexsort((drawn.order, cells))
    first = order[first_of_runs(cells[order])]
    example = np.full(width * BANDS, -1, np.int64)
    example[cells[first]] = first
    return Bands(tops_of(edge_keys), sums.largest(), count.reshape(-1, BANDS), example.reshape(-1, BANDS))
