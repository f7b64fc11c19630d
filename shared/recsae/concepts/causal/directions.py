"""Effects of any direction added to all users, at any doses: handles, baselines and studies.

Not here: single concepts and all their operations (`measuring`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.causal.costs import Costs, costs
from recsae.concepts.causal.doses import Dose
from recsae.concepts.causal.intervals import user_draws
from recsae.concepts.causal.turning import Turntable
from recsae.concepts.effects import DoseEffect

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Tried:
    """`directions` added `sizes` times to every user of a panel: figures [c, t]."""

    costs: Costs
    sizes: Doubles

    def effects(self, direction: int) -> tuple[DoseEffect, ...]:
        """The doses of one direction, simultaneous over them."""
        grid = [Dose("add", float(size)) for size in self.sizes]
        return self.costs.effects(direction, grid, np.zeros(0))


def try_directions(table: Turntable, directions: Floats, sizes: Sequence[float], own: Ints, seed: int = 0) -> Tried:
    """Adds `sizes[t] * directions[c]` to every user of the table's panel; `own` [c]: the set of each direction."""
    n = len(table.panel)
    amounts = np.asarray(sizes, np.float32)
    deltas = np.broadcast_to(amounts[None, :, None], (len(directions), len(amounts), n))
    made = table.turn(np.asarray(directions, np.float32), deltas, own)
    inside = np.asarray(table.sets[table.panel.target][:, own].todense() > 0).T
    return Tried(costs(made, inside, user_draws(n, seed)), np.asarray(sizes, np.float64))


def size_at_loss(table: Turntable, direction: Floats, own: int, loss: float, longest: float) -> float:
    """|dx| along a direction of any length at which the panel loses `loss` of its NDCG@10, by halving a grid.

    The first crossing on a fine grid up to `longest`; `longest` where there is none.
    """
    sizes = longest * np.geomspace(0.01, 1.0, 40)
    unit = direction / max(float(np.linalg.norm(direction)), 1e-12)
    tried = try_directions(table, unit[None], sizes.tolist(), np.array([own]))
    lost = 1 - tried.costs.kept.value[0]
    return crossing(sizes, lost, loss)


def crossing(sizes: Doubles, lost: Doubles, loss: float) -> float:
    """Where `lost` [t] first reaches `loss` on the line between ascending `sizes` [t] (0 loses nothing)."""
    sizes, lost = np.concatenate([[0.0], sizes]), np.concatenate([[0.0], lost])
    over = np.flatnonzero(lost >= loss)
    if not len(over):
        return float(sizes[-1])
    at = int(over[0])
    share = (loss - lost[at - 1]) / (lost[at] - lost[at - 1])
    return float(sizes[at - 1] + share * (sizes[at] - sizes[at - 1]))
