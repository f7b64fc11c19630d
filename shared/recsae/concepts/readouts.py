"""Reading a property out of activations by few of their coordinates, and how well that works on other users.

Properties are columns of `targets` [n, G]; features are the latents of an SAE (sparse) or coordinates (dense). What is
read is chosen and fitted on one set of rows and predicts on another, never on its own. All fits follow from moments
(means, covariances), so no feature matrix is made dense. Not here: which rows and which properties (the study).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Doubles = NDArray[np.float64]
# Rows [n, m] of features: a sparse matrix of codes, or an array of dense coordinates.
Features = Any

_TINY = 1e-12
# Ridge penalty as a share of the mean variance of a coordinate.
_RIDGE = 1e-3


@dataclass(frozen=True)
class Readout:
    """prediction [n, G] = features [n, m] @ `weights` float64 [m, G] (+ a constant, which correlations forget)."""

    weights: Doubles

    def predict(self, features: Features) -> Doubles:
        """Predictions float64 [n, G]."""
        predicted: Doubles = np.asarray(features @ self.weights, np.float64)
        return predicted

    @property
    def features_used(self) -> list[NDArray[np.int64]]:
        """The features each property is read from."""
        return [np.flatnonzero(column) for column in self.weights.T]


@dataclass(frozen=True)
class _Moments:
    """Covariance of features [m, m], of features with targets [m, G], and standard deviations [m], [G]."""

    among: Doubles
    across: Doubles
    spread: Doubles
    target_spread: Doubles


def best_single(features: Features, targets: Doubles) -> Readout:
    """For each property the one feature that correlates most with it, whatever the sign."""
    moments = _moments(features, targets, with_features=False)
    scale = moments.spread[:, None] * moments.target_spread[None, :]
    correlation = np.divide(moments.across, scale, out=np.zeros_like(moments.across), where=scale > _TINY)
    chosen = np.abs(correlation).argmax(axis=0)
    columns = np.arange(targets.shape[1])
    weights = np.zeros_like(moments.across)
    weights[chosen, columns] = np.where(correlation[chosen, columns] < 0, -1.0, 1.0)
    return Readout(weights)


def few(features: Features, targets: Doubles, k: int) -> Readout:
    """For each property `k` features chosen one after the other (orthogonal matching pursuit), by least squares.

    k-sparse probing (Gurnee et al. 2023) with a linear head; the next feature is the one that correlates most with
    what those before it leave unexplained.
    """
    moments = _moments(features, targets)
    weights = np.zeros_like(moments.across)
    for column in range(targets.shape[1]):
        chosen: list[int] = []
        solution = np.zeros(0)
        for _ in range(min(k, len(weights))):
            left = moments.across[:, column] - moments.among[:, chosen] @ solution
            gain = np.divide(np.abs(left), moments.spread, out=np.zeros_like(left), where=moments.spread > _TINY)
            gain[chosen] = -1
            chosen.append(int(gain.argmax()))
            solution = _solve(moments.among[np.ix_(chosen, chosen)], moments.across[chosen, column])
        weights[chosen, column] = solution
    return Readout(weights)


def all_of(features: Features, targets: Doubles) -> Readout:
    """The linear probe: every feature, by ridge regression."""
    moments = _moments(features, targets)
    penalty = _RIDGE * float(np.square(moments.spread).mean())
    weights = np.linalg.solve(moments.among + penalty * np.eye(len(moments.among)), moments.across)
    return Readout(weights.astype(np.float64))


def best_thresholds(predicted: Doubles, positive: NDArray[np.bool_]) -> Doubles:
    """For each column of `predicted` [n, G] the value from which on calling it positive has the largest F1, [G]."""
    order = np.argsort(-predicted, axis=0, kind="stable")
    ranked = np.take_along_axis(predicted, order, axis=0)
    hits = np.cumsum(np.take_along_axis(positive, order, axis=0), axis=0)
    called = np.arange(1, len(predicted) + 1)[:, None]
    f1 = 2 * hits / np.maximum(called + positive.sum(axis=0)[None, :], 1)
    # Rows of equal value are called together: only the last of them counts.
    last = np.concatenate([ranked[:-1] != ranked[1:], np.ones((1, predicted.shape[1]), bool)])
    best = np.where(last, f1, -1).argmax(axis=0)
    thresholds: Doubles = ranked[best, np.arange(predicted.shape[1])]
    return thresholds


def as_features(by_latent: sparse.csr_matrix) -> sparse.csr_matrix:
    """Firings CSR [w, n] as features of rows, CSR [n, w]."""
    return by_latent.T.tocsr()


def sparse_projection(
    x: NDArray[np.float32], centre: NDArray[np.float32], directions: NDArray[np.float32], k: int
) -> sparse.csr_matrix:
    """Codes of any unit directions [m, d] as an SAE's would be: the k largest positive projections of x - centre."""
    blocks = []
    for at in range(0, len(x), 4096):
        projected = np.maximum((x[at : at + 4096] - centre) @ directions.T, 0)
        kept = np.argpartition(-projected, min(k, projected.shape[1]) - 1, axis=1)[:, :k]
        values = np.take_along_axis(projected, kept, axis=1)
        pointers = np.arange(0, values.size + 1, kept.shape[1])
        blocks.append(sparse.csr_matrix((values.ravel(), kept.ravel(), pointers), shape=projected.shape))
    stacked = sparse.vstack(blocks, format="csr")
    stacked.eliminate_zeros()
    return stacked


def _moments(features: Features, targets: Doubles, *, with_features: bool = True) -> _Moments:
    n = len(targets)
    mean = np.asarray(features.mean(axis=0), np.float64).ravel()
    target_mean = targets.mean(axis=0)
    across = np.asarray(features.T @ targets, np.float64) / n - mean[:, None] * target_mean[None, :]
    if with_features:
        among = _product(features) / n - mean[:, None] * mean[None, :]
        variance = np.diag(among)
    elif not sparse.issparse(features):
        among, variance = np.zeros((0, 0)), np.var(features, axis=0, dtype=np.float64)
    else:
        among = np.zeros((0, 0))
        variance = np.asarray(features.multiply(features).mean(axis=0), np.float64).ravel() - mean**2
    return _Moments(among, across, np.sqrt(np.maximum(variance, 0)), targets.std(axis=0))


def _product(features: Features) -> Doubles:
    if sparse.issparse(features):
        return np.asarray((features.T @ features).toarray(), np.float64)
    dense = np.asarray(features, np.float64)
    product: Doubles = dense.T @ dense
    return product


def _solve(among: Doubles, across: Doubles) -> Doubles:
    """Least squares by the normal equations; features that repeat each other share the weight."""
    return np.asarray(np.linalg.lstsq(among, across, rcond=1e-9)[0], np.float64)
