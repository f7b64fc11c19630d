"""From counts of a turned panel to figures with intervals: quality kept, facet share, off-target change.

**Off-target.** Re-ranking by the facet itself, with one bonus for its items, never exchanges two items of a kind: each
exchange brings one facet item in (or takes one out). At equal share it therefore changes exactly |change of share| of
the lists, and off-target = changed share of the top 10 - |change of the facet's share|, without re-ranking anything.
Not here: lists (`turning`), bounds (`intervals`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.causal.board import DEPTH
from recsae.concepts.causal.doses import Dose
from recsae.concepts.causal.intervals import Drawn, estimate, log_odds_change, ratio, simultaneous_upper, totals
from recsae.concepts.causal.turning import Outcomes
from recsae.concepts.effects import DoseEffect

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Costs:
    """Figures [c, t] of c directions at t doses, paired over users; all `Drawn` share their draws.

    `log_odds` change of the facet's share; `share` after; `kept`, `inside`, `outside` NDCG@10 over the unsteered one,
    of all targets and those in and out of the facet; `off_target`; `changed` float64 [c, t]: share of users whose list
    changed.
    """

    log_odds: Drawn
    share: Drawn
    kept: Drawn
    inside: Drawn
    outside: Drawn
    off_target: Drawn
    changed: Doubles

    def effects(self, direction: int, grid: Sequence[Dose], survived: Doubles) -> tuple[DoseEffect, ...]:
        """The doses of one direction; `survived` float64 [<= t] of the first doses, those that add."""
        loss_upper, off_upper = self._bounds(direction, grid)
        made = []
        for at, dose in enumerate(grid):
            place = (direction, at)
            made.append(
                DoseEffect(
                    operation=dose.operation,
                    dose=dose.value,
                    facet_log_odds=estimate(self.log_odds, place),
                    ndcg_kept=estimate(self.kept, place),
                    ndcg_kept_inside=estimate(self.inside, place),
                    ndcg_kept_outside=estimate(self.outside, place),
                    off_target=estimate(self.off_target, place),
                    lists_changed=float(self.changed[place]),
                    loss_upper=float(loss_upper[at]),
                    off_target_upper=float(off_upper[at]),
                    survives=float(survived[at]) if at < len(survived) else 0.0,
                    facet_share=float(self.share.value[place]),
                )
            )
        return tuple(made)

    def _bounds(self, direction: int, grid: Sequence[Dose]) -> tuple[Doubles, Doubles]:
        """Simultaneous upper bounds of loss and off-target over the doses of each operation, float64 [t] each."""
        loss, off_target = np.zeros(len(grid)), np.zeros(len(grid))
        for operation in dict.fromkeys(dose.operation for dose in grid):
            at = [place for place, dose in enumerate(grid) if dose.operation == operation]
            kept = Drawn(self.kept.value[direction, at], self.kept.draws[:, direction, at])
            lost = Drawn(1 - kept.value, 1 - kept.draws)
            beside = Drawn(self.off_target.value[direction, at], self.off_target.draws[:, direction, at])
            loss[at], off_target[at] = simultaneous_upper([lost, beside])
        return loss, off_target


def costs(made: Outcomes, inside: Bools, weights: Floats) -> Costs:
    """Figures of a turned panel; `inside` bool [c, n]: whose target is in the facet; `weights` from `user_draws`."""
    n = made.base_gains.shape[0]
    base = totals(
        weights,
        np.stack(
            [made.base_gains[:, None] * inside.T, np.broadcast_to(made.base_gains[:, None], inside.T.shape)], axis=2
        ),
    )
    gains = np.ascontiguousarray(made.gains.transpose(2, 0, 1))
    after = totals(weights, gains)
    after_inside = totals(weights, gains * inside.T[:, :, None])
    hits = totals(weights, np.ascontiguousarray(made.hits.transpose(2, 0, 1)).astype(np.float32))
    hits_before = totals(weights, made.base_hits.T.astype(np.float32)[:, :, None])
    gone = totals(weights, DEPTH - np.ascontiguousarray(made.kept.transpose(2, 0, 1)).astype(np.float32))
    listed = float(DEPTH * n)
    base_inside, base_all = _entry(base, 0), _entry(base, 1)
    return Costs(
        log_odds=log_odds_change(hits, hits_before, listed),
        share=Drawn(hits.value / listed, hits.draws / listed),
        kept=ratio(after, base_all),
        inside=ratio(after_inside, base_inside),
        outside=ratio(_minus(after, after_inside), _minus(base_all, base_inside)),
        off_target=Drawn(
            (gone.value - np.abs(hits.value - hits_before.value)) / listed,
            (gone.draws - np.abs(hits.draws - hits_before.draws)) / listed,
        ),
        changed=(made.kept < DEPTH).mean(axis=2),
    )


def _entry(drawn: Drawn, at: int) -> Drawn:
    return Drawn(drawn.value[:, at, None], drawn.draws[:, :, at, None])


def _minus(a: Drawn, b: Drawn) -> Drawn:
    return Drawn(a.value - b.value, a.draws - b.draws)
