"""Lists that shadow policies would have made: kept with a ranking at no cost, ranked only where somebody asks.

Nothing of it reaches a response. Not here: which rows the policies would have made (`recsae.steering.delta`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recsae.recommenders.runtime import OnnxRecommender
from recsae.steering.plans import Floats
from recsae_recommender.ranking import RankAsk, RankedList, rank_rows
from recsae_recommender.rows import EmbeddedRows


@dataclass(frozen=True, eq=False)
class ShadowRows:
    """One request as shadow policies would have left it: its rows and what it asked of the head."""

    rows: EmbeddedRows
    ask: RankAsk

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        candidates = self.rows.candidates
        held = self.rows.activation.nbytes + sum(tensor.nbytes for tensor in self.rows.passthrough.values())
        return held + (0 if candidates is None else candidates.nbytes)

    def copied(self) -> ShadowRows:
        """The same by itself: without it, what waits to be ranked would hold its whole batch."""
        rows = self.rows
        candidates = None if rows.candidates is None else rows.candidates.copy()
        passthrough = {name: tensor.copy() for name, tensor in rows.passthrough.items()}
        return ShadowRows(EmbeddedRows(rows.activation.copy(), rows.sizes, candidates, passthrough), self.ask)


def shadow_rows(rows: EmbeddedRows, shadows: Mapping[int, Floats], asks: Sequence[RankAsk]) -> dict[int, ShadowRows]:
    """By request of a batch: views of its rows, with the activations float32 [r, d] of `shadows` in their place."""
    return {
        request: ShadowRows(
            EmbeddedRows(
                np.atleast_2d(activation),
                [rows.sizes[request]],
                None if rows.candidates is None else rows.candidates[request : request + 1],
                {name: tensor[request : request + 1] for name, tensor in rows.passthrough.items()},
            ),
            asks[request],
        )
        for request, activation in shadows.items()
    }


def shadow_list(recommender: OnnxRecommender, shadow: ShadowRows) -> RankedList:
    """The list, best first: one more run of the head."""
    rows = shadow.rows
    (found,) = rank_rows(recommender, rows.lists(rows.activation), rows.passthrough, [shadow.ask], rows.candidates)
    return found
