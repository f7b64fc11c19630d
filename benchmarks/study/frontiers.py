"""A steering method's frontier: what a facet's share gains against what NDCG@10 loses, size by size.

Not here: which directions there are (`steering`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.causal.directions import Tried, crossing, try_directions
from recsae.concepts.causal.turning import Turntable

# Sizes of change, as shares of the longest.
GRID = np.geomspace(0.02, 1.0, 36)

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Frontier:
    """A method's direction over sizes on verification users, upwards (`up`) and downwards (`down`)."""

    up: Tried
    down: Tried

    def gains(self, loss: float, *, down: bool = False) -> Doubles:
        """Change of log-odds where `loss` is first reached: the panel's first, then each draw's."""
        costs, sizes = (self.down if down else self.up).costs, self.up.sizes
        kept = np.concatenate([costs.kept.value[None, 0], costs.kept.draws[:, 0]])
        odds = np.concatenate([costs.log_odds.value[None, 0], costs.log_odds.draws[:, 0]])
        found = [
            np.interp(crossing(sizes, 1 - one, loss), np.concatenate([[0.0], sizes]), np.concatenate([[0.0], height]))
            for one, height in zip(kept, odds, strict=True)
        ]
        return np.array(found)

    def at(self, loss: float) -> float:
        """The size at which the point estimate first loses `loss`."""
        return crossing(self.up.sizes, 1 - self.up.costs.kept.value[0], loss)

    def points(self) -> list[dict[str, float]]:
        """Everything a plot needs, least dose first."""
        costs = self.up.costs
        return [
            {
                "dose": round(float(size), 4),
                "dlogodds": round(float(costs.log_odds.value[0, at]), 4),
                "share": round(float(costs.share.value[0, at]), 4),
                "loss": round(float(1 - costs.kept.value[0, at]), 4),
                "loss_outside": round(float(1 - costs.outside.value[0, at]), 4),
                "off_target": round(float(costs.off_target.value[0, at]), 4),
            }
            for at, size in enumerate(self.up.sizes)
        ]


def frontier_of(table: Turntable, direction: Floats, column: int, longest: float, seed: int) -> Frontier:
    """The frontier of a direction of any length, both ways, up to a change of `longest`."""
    unit = direction / max(float(np.linalg.norm(direction)), 1e-12)
    sizes = longest * GRID
    own = np.array([column])
    return Frontier(
        try_directions(table, unit[None], sizes.tolist(), own, seed),
        try_directions(table, -unit[None], sizes.tolist(), own, seed),
    )


def estimate_of(values: Doubles) -> dict[str, float]:
    """The panel's value with the 95 % interval of the draws' quantiles."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return {"value": round(float(values[0]), 4), "low": round(float(low), 4), "high": round(float(high), 4)}
