"""What activations give away about an attribute of users, and which concepts carry it.

A linear probe fitted on construction users, its AUC on verification users; latents whose firing separates two groups;
activations without them. Not here: what that does to recommendations (`directions`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_RIDGE = 1e-2

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def probe_auc(x_fit: Floats, group_fit: Bools, x_score: Floats, group_score: Bools) -> float:
    """AUC on scored rows of a ridge regression from activations [n, d] to the group, fitted on other rows.

    Ridge: a hundredth of the mean variance. .5 = nothing linear is left to read.
    """
    mean = x_fit.mean(axis=0, dtype=np.float64)
    centred = x_fit - mean
    moments = centred.T @ centred / len(x_fit)
    moments += _RIDGE * np.trace(moments) / len(moments) * np.eye(len(moments))
    weights = np.linalg.solve(moments, centred.T @ (group_fit - group_fit.mean()) / len(x_fit))
    return auc((x_score - mean) @ weights, group_score)


def auc(scores: Doubles, positive: Bools) -> float:
    """Share of pairs of a positive and another row in which the positive scores higher; ties count half."""
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return 0.5
    _, place, size = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(size) - (size - 1) / 2
    return float((rank[place][positive].sum() - n * (n + 1) / 2) / (n * m))


def separating_latents(values: sparse.csr_matrix, group: Bools, most: int) -> Ints:
    """Latents whose values [w, n] differ most between two groups, in standard errors; at most `most`, largest first."""
    dense_mean = [np.asarray(values[:, side].mean(axis=1)).ravel() for side in (group, ~group)]
    squares = values.multiply(values)
    spread = [
        np.maximum(np.asarray(squares[:, side].mean(axis=1)).ravel() - mean**2, 0) / max(1, int(side.sum()))
        for side, mean in zip((group, ~group), dense_mean, strict=True)
    ]
    error = np.sqrt(spread[0] + spread[1])
    distance = np.abs(dense_mean[0] - dense_mean[1])
    score = np.divide(distance, error, out=np.zeros_like(distance), where=error > 0)
    return np.argsort(-score, kind="stable")[:most].astype(np.int64)


def without(x: Floats, values: sparse.csr_matrix, latents: Ints, w_dec: Floats) -> Floats:
    """Activations [n, d] with latents taken out, error kept: x - sum_j z_j W_dec[j]; `values` [w, n]."""
    taken = np.asarray(values[latents].todense(), np.float32).T @ w_dec[latents]
    return np.asarray(x - taken, np.float32)


def nearest_combination(direction: Floats, w_dec: Floats, most: int) -> tuple[Ints, Doubles]:
    """At most `most` rows of `w_dec` [w, d] and weights whose sum comes near `direction` [d]: matching pursuit.

    Orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad 1993): the row that fits the rest best joins, then
    all weights are fitted again.
    """
    chosen: list[int] = []
    rest: Doubles = direction.astype(np.float64)
    weights: Doubles = np.zeros(0)
    for _ in range(most):
        fit = np.abs(w_dec @ rest)
        fit[chosen] = -1
        chosen.append(int(np.argmax(fit)))
        rows = w_dec[chosen].astype(np.float64)
        weights = np.asarray(np.linalg.lstsq(rows.T, direction.astype(np.float64), rcond=None)[0], np.float64)
        rest = np.asarray(direction - weights @ rows, np.float64)
    return np.array(chosen, np.int64), weights
