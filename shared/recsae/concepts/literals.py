"""Literals: the yes/no questions about a history that rules are built from, and their truth on many rows at once.

Four kinds: recency-weighted share of a facet >= threshold, newest item has a facet, ln count of the newest item >=
threshold, history length >= threshold. Not here: which literals describe a latent (`describing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.features import RowFeatures
from recsae.errors import FailedPreconditionError

RECENT, LAST, POPULARITY, LENGTH = "recent", "last", "popularity", "length"
# Shares at decay .75 over ten items: .1 = "seen lately", .25 = "the newest item, or several before it", up to .85.
_SHARE_THRESHOLDS = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85)
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
# A literal true on fewer rows cannot describe a latent with enough cases; one true on nearly all says nothing.
_MIN_SUPPORT, _MAX_SUPPORT = 0.001, 0.995
# Bounds truth [L, n]: 1,024 x 50,000 bytes = 51 MB, and the products of `describing`.
MAX_LITERALS = 1024
_FACETS_AT_ONCE = 64


@dataclass(frozen=True)
class Literal:
    """One question. `facet` is "" for popularity and length."""

    kind: str
    facet: str
    threshold: float


@dataclass(frozen=True)
class LiteralBank:
    """Literals worth trying and their truth on the rows they were chosen from, uint8 [L, n]."""

    literals: tuple[Literal, ...]
    truth: NDArray[np.uint8]


def build_bank(features: RowFeatures, max_literals: int = MAX_LITERALS) -> LiteralBank:
    """All literals with enough support on `features`, at most `max_literals`.

    When there are more, the best-supported questions about single facets stay first: those of middling support.
    """
    candidates = [*_facet_candidates(features), *_number_candidates(features)]
    support = np.concatenate([_support(features, group) for group in _in_groups(candidates)])
    kept = np.flatnonzero((support >= _MIN_SUPPORT) & (support <= _MAX_SUPPORT))
    if len(kept) > max_literals:
        informative = support[kept] * (1 - support[kept])
        kept = np.sort(kept[np.argsort(-informative, kind="stable")[:max_literals]])
    literals = tuple(candidates[at] for at in kept)
    return LiteralBank(literals, truth_of(literals, features))


def truth_of(literals: Sequence[Literal], features: RowFeatures) -> NDArray[np.uint8]:
    """Truth of each literal on each row, uint8 [L, n]. FailedPreconditionError for a facet the data do not have."""
    column = {name: at for at, name in enumerate(features.facets)}
    truth = np.zeros((len(literals), len(features)), np.uint8)
    last = features.last.tocsc()
    for row, literal in enumerate(literals):
        if literal.kind in (RECENT, LAST) and literal.facet not in column:
            raise FailedPreconditionError(
                f"facet {literal.facet!r} is in a rule but not in the facet table; build both from one data set"
            )
        if literal.kind == RECENT:
            truth[row] = features.recent[:, column[literal.facet]] >= np.float32(literal.threshold)
        elif literal.kind == LAST:
            at = column[literal.facet]
            truth[row, last.indices[last.indptr[at] : last.indptr[at + 1]]] = 1
        elif literal.kind == POPULARITY:
            truth[row] = features.popularity >= np.float32(literal.threshold)
        else:
            truth[row] = features.length >= literal.threshold
    return truth


def _facet_candidates(features: RowFeatures) -> list[Literal]:
    shares = [Literal(RECENT, name, threshold) for name in features.facets for threshold in _SHARE_THRESHOLDS]
    return [*shares, *(Literal(LAST, name, 1.0) for name in features.facets)]


def _number_candidates(features: RowFeatures) -> list[Literal]:
    popular = np.unique(np.quantile(features.popularity, _QUANTILES).astype(np.float32))
    long = np.unique(np.ceil(np.quantile(features.length, _QUANTILES)))
    return [
        *(Literal(POPULARITY, "", float(threshold)) for threshold in popular),
        *(Literal(LENGTH, "", float(threshold)) for threshold in long),
    ]


def _in_groups(candidates: list[Literal]) -> list[list[Literal]]:
    return [candidates[at : at + _FACETS_AT_ONCE] for at in range(0, len(candidates), _FACETS_AT_ONCE)]


def _support(features: RowFeatures, group: list[Literal]) -> NDArray[np.float64]:
    support: NDArray[np.float64] = truth_of(group, features).mean(axis=1, dtype=np.float64)
    return support
