"""Facet enrichment: which facets are over-represented among the items of a concept (docs/method.md, section 4).

The null keeps popularity and breaks the facets: item rows permuted within popularity decile. Its mean is known in
closed form, the unweighted facet share of each decile, so nothing is drawn. A facet is kept where the lower 95 %
bound of its log-odds ratio is at least ln 2. Used on both sides: deciding items (input), promoted items (output).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.records import FacetLift
from recsae.datasets.facets import is_made
from recsae.significance import Z95

LEAST_LOG_ODDS = float(np.log(2))
_KEPT = 8
# Effective items that must carry a facet: one or two among fifty are a coincidence the normal bound does not see.
_LEAST_SUPPORT = 3.0


@dataclass(frozen=True)
class Enrichment:
    """Log-odds ratio and its lower 95 % bound, float64 [m, F], for m latents."""

    log_odds: NDArray[np.float64]
    low: NDArray[np.float64]

    def lifts(self, row: int, names: tuple[str, ...]) -> tuple[FacetLift, ...]:
        """The facets of one latent that stand out, at most 8, largest lower bound first.

        Values the data hold come before pairs of them and groups of items: there are many more of these.
        """
        order = np.flatnonzero(self.low[row] >= LEAST_LOG_ODDS)
        order = order[np.argsort(-self.low[row, order], kind="stable")].tolist()
        order.sort(key=lambda at: is_made(names[at]))
        return tuple(
            FacetLift(names[at], round(float(self.log_odds[row, at]), 4), round(float(self.low[row, at]), 4))
            for at in order[:_KEPT]
        )


def enrich(weights: sparse.csr_matrix, facets: sparse.csr_matrix, deciles: NDArray[np.int32]) -> Enrichment:
    """Enrichment of facets in weighted items.

    `weights` [m, n_items + 1] >= 0 says how much each item belongs to each latent; `facets` 0/1 [n_items + 1, F];
    `deciles` [n_items + 1] from `popularity_deciles` (-1 = padding). The effective number of independent items,
    (sum p)^2 / sum p^2, sets the width of the bound: many users with one item are one observation.
    """
    shares, effective = _normalised(weights)
    seen = (shares @ facets).toarray().astype(np.float64)
    count = int(deciles.max()) + 1
    real = np.flatnonzero(deciles >= 0)
    member = sparse.csr_matrix((np.ones(len(real)), (real, deciles[real])), shape=(len(deciles), count))
    size = np.maximum(np.asarray(member.sum(axis=0)).ravel(), 1)
    by_decile = (member.T @ facets).toarray() / size[:, None]
    expected = np.asarray((shares @ member).toarray() @ by_decile, np.float64)
    n = effective[:, None]
    observed = (seen * n + 0.5) / (n + 1)
    expected = np.clip((expected * len(real) + 0.5) / (len(real) + 1), 1e-9, 1 - 1e-9)
    log_odds = _logit(observed) - _logit(expected)
    error = 1 / np.sqrt((n + 1) * observed * (1 - observed))
    supported = seen * n >= _LEAST_SUPPORT
    return Enrichment(log_odds, np.where(supported, log_odds - Z95 * error, -np.inf))


def user_weights(
    latents: NDArray[np.int64], users: NDArray[np.int64], items: NDArray[np.int64], shape: tuple[int, int]
) -> sparse.csr_matrix:
    """Weights [w, n_items + 1] from firings given as coordinates.

    Each user counts once per latent, split evenly over the distinct items it fired on; padding (item 0) is left out.
    """
    kept = items > 0
    triples = np.unique(np.stack([latents[kept], users[kept], items[kept]], axis=1), axis=0)
    if not len(triples):
        return sparse.csr_matrix(shape, dtype=np.float64)
    new_user = np.any(np.diff(triples[:, :2], axis=0, prepend=-1) != 0, axis=1)
    owner = np.cumsum(new_user) - 1
    weight = 1.0 / np.bincount(owner)[owner]
    return sparse.csr_matrix((weight, (triples[:, 0], triples[:, 2])), shape=shape)


def effective_number(weights: sparse.csr_matrix) -> NDArray[np.float64]:
    """(sum w)^2 / sum w^2 per row, float64 [m]; 0 for an empty row, 1 when one item holds everything."""
    total = np.asarray(weights.sum(axis=1)).ravel()
    squares = np.asarray(weights.multiply(weights).sum(axis=1)).ravel()
    number: NDArray[np.float64] = np.divide(total**2, squares, out=np.zeros(len(total)), where=squares > 0)
    return number


def _normalised(weights: sparse.csr_matrix) -> tuple[sparse.csr_matrix, NDArray[np.float64]]:
    weights = weights.astype(np.float64)
    total = np.maximum(np.asarray(weights.sum(axis=1)).ravel(), 1e-300)
    return sparse.diags(1 / total) @ weights, effective_number(weights)


def _logit(share: NDArray[np.float64]) -> NDArray[np.float64]:
    logit: NDArray[np.float64] = np.log(share / (1 - share))
    return logit
