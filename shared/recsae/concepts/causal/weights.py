"""Weights over latents that raise a facet's share of lists at little cost, found on construction users.

With p(i | u) = softmax of u's scores over what u has not consumed, adding sum_j w_j W_dec[j] to everybody changes all
scores of item i by (w G)_i, G = W_dec E^T. Minimised over w, by L-BFGS:

    - logit(mean over u of the facet's mass) + cost mean over u of -ln p(target of u) + RIDGE |w|^2 / mean |x|^2

(with the other sign before the logit the share is lowered). The first term is the gain, the second what it costs the
items people really chose. Since the change is the same for all users, exp(score) is computed once and a step is two
products of a matrix with two vectors. Not here: which latents may take part and what comes of it (`handles`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from recsae.concepts.causal.board import NEVER, Head
from recsae.concepts.causal.panel import Panel

# Log-odds that a nat of the targets' likelihood is worth: too little and the first percent of loss is spent at once,
# too much and nothing moves. Which is right depends on how much of the softmax a facet holds, so it is chosen on users.
PRICES = (1.0, 3.0, 10.0)
RIDGE = 1.2
_STEPS = 60
_SCORES = 1 << 24  # 64 MiB

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class FacetObjective:
    """The function of the weights for one panel and one facet. `rows` are read from the first users on, 64 MiB."""

    def __init__(self, panel: Panel, head: Head, member: Bools, *, raises: bool = True) -> None:
        """`member` bool [n_items + 1]: items of the facet, whose share is to rise or else to fall."""
        self.raises = raises
        n = min(len(panel), max(1, _SCORES // len(member)))
        part = panel if n == len(panel) else panel.of(np.arange(len(panel)) < n)
        scores = head.scores(part.x)
        scores[np.repeat(np.arange(n), np.diff(part.offsets)), part.consumed] = NEVER
        scores -= scores.max(axis=1, keepdims=True)
        self._odds: Floats = np.exp(scores)
        self._targets = np.bincount(part.target, minlength=len(member)) / n
        self._member = member.astype(np.float32)
        self._scale = float(np.square(part.x).sum(axis=1).mean())

    def __call__(self, weights: Doubles, effects: Floats, price: float) -> tuple[float, Doubles]:
        """Value and gradient at `weights` [m] of `effects` [m, n_items + 1]; `price` is the cost in the formula."""
        n, sign = len(self._odds), 1.0 if self.raises else -1.0
        shift = weights.astype(np.float32) @ effects
        tilt = np.exp(np.clip(shift, -30, 30))
        sums = self._odds @ np.stack([tilt, tilt * self._member], axis=1)
        mass = sums[:, 1] / sums[:, 0]
        mean = float(np.clip(mass.mean(dtype=np.float64), 1e-9, 1 - 1e-9))
        back = self._odds.T @ np.stack([1 / sums[:, 0], mass / sums[:, 0]], axis=1) / n
        shares, massed = tilt * back[:, 0], tilt * back[:, 1]
        surprise = float(np.log(sums[:, 0].astype(np.float64)).mean() - self._targets @ shift)
        ridge = RIDGE / self._scale
        value = -sign * np.log(mean / (1 - mean)) + price * surprise + ridge * float(weights @ weights)
        slope = -sign * (self._member * shares - massed) / (mean * (1 - mean)) + price * (shares - self._targets)
        return value, effects.astype(np.float64) @ slope + 2 * ridge * weights


def find_weights(objective: FacetObjective, effects: Floats, most: int, price: float) -> tuple[Ints, Doubles]:
    """At most `most` rows of `effects` [m, n_items + 1] and their weights: first all together, then the largest."""
    first = _minimised(objective, effects, price, np.zeros(len(effects)))
    kept = np.sort(np.argsort(-np.abs(first), kind="stable")[:most])
    return kept, _minimised(objective, effects[kept], price, first[kept])


def _minimised(objective: FacetObjective, effects: Floats, price: float, start: Doubles) -> Doubles:
    found = minimize(objective, start, args=(effects, price), jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
    return np.asarray(found.x, np.float64)
