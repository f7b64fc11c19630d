"""What the language model is shown of a latent: the evidence of its record, and construction users drawn at random.

Strengths are shown as in RecSAE (arXiv 2411.06112): the tenth of the latent's firings a value lies in, 1 to 10, 0 where
it is silent, so that the scale is the same for every latent. Not here: which histories are the strongest and what
decides them (`recsae.concepts.evidence`), and the words of the prompt (`prompts`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.describers import Example, LatentEvidence
from recsae.concepts.inputs import PartRows
from recsae.concepts.llm.cases import newest_titles
from recsae.concepts.llm.prompts import MAX_TITLES
from recsae.concepts.records import ConceptRecord, Evidence

_BINS = 10
_FIRING, _NEAR_MISSES, _SILENT = 5, 3, 4


def evidence_of(concept: ConceptRecord, part: PartRows, titles: Sequence[str], seed: int = 0) -> LatentEvidence:
    """Evidence of one latent from construction rows; `titles`: position i is item index i + 1."""
    matrix, users = part.firings.by_latent, part.sample.user
    begin, end = matrix.indptr[concept.latent], matrix.indptr[concept.latent + 1]
    rows, values = matrix.indices[begin:end], matrix.data[begin:end]
    edges = np.quantile(values, np.arange(1, _BINS) / _BINS) if len(values) else np.zeros(_BINS - 1)
    rng = np.random.default_rng((seed, concept.latent))
    firing = _of_distinct_users(rng.permutation(len(rows)), users[rows], _FIRING)
    silent = np.ones(len(users), bool)
    silent[rows] = False
    quiet = rng.permutation(np.flatnonzero(silent))
    quiet = quiet[_of_distinct_users(np.arange(len(quiet)), users[quiet], _SILENT)]
    return LatentEvidence(
        latent=concept.latent,
        strongest=tuple(_shown(one, int(_rating(one.strength * concept.p95, edges))) for one in concept.evidence),
        firing=tuple(
            Example(newest_titles(part, int(rows[at]), titles), int(_rating(float(values[at]), edges))) for at in firing
        ),
        near_misses=tuple(_shown(one, 0) for one in concept.near_misses[:_NEAR_MISSES]),
        silent=tuple(Example(newest_titles(part, int(row), titles), 0) for row in quiet),
    )


def _rating(value: float, edges: NDArray[np.float64]) -> int:
    """1 to 10."""
    return 1 + int(np.searchsorted(edges, value, side="right"))


def _of_distinct_users(order: NDArray[np.int64], users: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """The first `count` positions of `order` with distinct users."""
    first = np.unique(users[order], return_index=True)[1]
    chosen: NDArray[np.int64] = order[np.sort(first)[:count]]
    return chosen


def _shown(one: Evidence, rating: int) -> Example:
    items = one.items[-MAX_TITLES:]
    deciding = next((item.title for item in one.items if item.deciding), "")
    return Example(tuple(item.title for item in items), rating, deciding)
