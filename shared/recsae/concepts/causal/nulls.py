"""What moving users as far along something else would have done: random live latents and random directions.

A concept is named after the facet it promotes, so of course it promotes it; the question is by how much more than
others moved equally far. Effects between two measured sizes of change are read off the line between their log-odds.
Not here: measuring them (`turning`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NULLS = 60
_LEAST_NULLS = 20
_NORMS = 6

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """Log-odds of every set along some directions.

    `size` float64 [c, t]: |dx|, ascending, the first 0; `log_odds` float32 [c, t, m] of each set's share.
    """

    size: Doubles
    log_odds: Floats

    def gain(self, rows: Ints, column: int, at: float) -> Doubles:
        """Change of the log-odds of one set when users are moved by `at` along `rows`; NaN beyond what was measured."""
        size, height = self.size[rows], self.log_odds[rows][:, :, column].astype(np.float64)
        upper = (size < at).sum(axis=1)
        reachable = (upper > 0) & (upper < size.shape[1])
        upper = np.clip(upper, 1, size.shape[1] - 1)
        every = np.arange(len(rows))
        left, right = size[every, upper - 1], size[every, upper]
        share = np.clip((at - left) / np.maximum(right - left, 1e-12), 0.0, 1.0)
        found = height[every, upper - 1] * (1 - share) + height[every, upper] * share - height[:, 0]
        return np.where(reachable, found, np.nan)


def shares_as_log_odds(counts: Ints, of: int) -> Floats:
    """Log-odds of `counts` of `of` listed items, smoothed by half an item."""
    odds = (counts + 0.5) / np.maximum(of - counts + 0.5, 0.5)
    return np.asarray(np.log(odds), np.float32)


def random_directions(d: int, seed: int, count: int = NULLS) -> Floats:
    """`count` unit vectors float32 [count, d], uniform on the sphere."""
    drawn = np.random.default_rng(seed).normal(size=(count, d))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def norm_grid(sizes: Doubles) -> Doubles:
    """Sizes of change random directions are tried at, float64 [6], so that all of `sizes` > 0 lie between them."""
    low, high = float(sizes.min()), float(sizes.max())
    return np.geomspace(0.5 * low, 1.01 * high, _NORMS)


def alike_latents(density: Doubles) -> list[Ints]:
    """For each latent the 60 others nearest to it in the order of density; all others where there are fewer."""
    n = len(density)
    order = np.argsort(density, kind="stable").astype(np.int64)
    window = min(NULLS + 1, n)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    start = np.clip(place - window // 2, 0, n - window)
    near = order[start[:, None] + np.arange(window)]
    return list(near[near != np.arange(n)[:, None]].reshape(n, window - 1))


def percentile(effect: float, nulls: Doubles) -> float:
    """Share of nulls below `effect`, 0 to 1; 0 where fewer than 20 could be measured."""
    known = nulls[np.isfinite(nulls)]
    return float((known < effect).mean()) if len(known) >= _LEAST_NULLS else 0.0
