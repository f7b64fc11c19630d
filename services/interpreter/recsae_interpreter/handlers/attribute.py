"""Where the score of each recommended item comes from, concept by concept, for an activation that can be explained.

For dot-product heads the parts are exact (`recsae.concepts.attribution`); for other heads a concept's part is what
the score loses when the concept is taken out of the activation, and the rest is unexplained.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsae.concepts.attribution import ScoreAttributor
from recsae.concepts.records import ConceptRecord
from recsae.pipeline.triples import Triple
from recsae.rpc.deadline import Deadline
from recsae_interpreter.loading import LoadedTriple
from recsae_interpreter.recommender import ItemTable, Recommender, Row, ScoredItem

# An attributor holds the catalogue's mean vector, which takes longer to compute than an explanation.
_ATTRIBUTORS_KEPT = 4


@dataclass(frozen=True)
class Firing:
    """A concept that fires; `strength` = `value` over its p95."""

    concept: ConceptRecord
    value: float
    strength: float


@dataclass(frozen=True)
class Contribution:
    """A concept's signed part of one score, and its share of the sum of |parts|."""

    concept_id: str
    score: float
    share: float


@dataclass(frozen=True)
class Attribution:
    """`catalogue_mean` + `base` + `contributions` + `other` + `unexplained` = the item's score."""

    item: ScoredItem
    catalogue_mean: float
    base: float
    contributions: tuple[Contribution, ...]
    other: float
    unexplained: float


class ItemAttributor:
    """Ranks for an activation and splits the scores."""

    def __init__(self, recommender: Recommender) -> None:
        """Keeps its collaborator."""
        self._recommender = recommender
        self._kept: OrderedDict[Triple, tuple[ItemTable, ScoreAttributor]] = OrderedDict()
        self._lock = threading.Lock()

    def attribute(
        self, loaded: LoadedTriple, row: Row, firings: Sequence[Firing], named: int, k: int, deadline: Deadline
    ) -> tuple[Attribution, ...]:
        """The best `k` items with their parts; the first `named` of all `firings` get a part of their own."""
        (items,) = self._recommender.rank(row, row.activation[None], k=k, deadline=deadline)
        table = self._recommender.items(row, deadline)
        if table is None:
            return self._by_removal(loaded, row, items, firings[:named], deadline)
        return self._exactly(loaded, row, items, table, firings, named)

    def _exactly(
        self,
        loaded: LoadedTriple,
        row: Row,
        items: Sequence[ScoredItem],
        table: ItemTable,
        firings: Sequence[Firing],
        named: int,
    ) -> tuple[Attribution, ...]:
        parts = self._attributor(loaded, table).attribute(
            row.activation,
            np.array([one.concept.latent for one in firings], np.int64),
            np.array([one.value for one in firings], np.float32),
            [table.index_of[item.item_id] for item in items],
            np.array([item.score for item in items], np.float32),
            limit=named,
        )
        return tuple(
            Attribution(
                item,
                part.catalogue_mean,
                part.base,
                tuple(
                    Contribution(loaded.dictionary.by_latent(int(latent)).id, float(score), float(share))
                    for latent, score, share in zip(part.latents, part.contributions, part.shares, strict=True)
                ),
                part.other,
                part.unexplained,
            )
            for item, part in zip(items, parts, strict=True)
        )

    def _attributor(self, loaded: LoadedTriple, table: ItemTable) -> ScoreAttributor:
        with self._lock:
            held = self._kept.get(loaded.triple)
            if held is not None and held[0] is table:
                self._kept.move_to_end(loaded.triple)
                return held[1]
        made = ScoreAttributor(table.vectors, table.biases, loaded.sae.w_dec, loaded.sae.b_dec)
        with self._lock:
            self._kept[loaded.triple] = (table, made)
            while len(self._kept) > _ATTRIBUTORS_KEPT:
                self._kept.popitem(last=False)
        return made

    def _by_removal(
        self,
        loaded: LoadedTriple,
        row: Row,
        items: Sequence[ScoredItem],
        firings: Sequence[Firing],
        deadline: Deadline,
    ) -> tuple[Attribution, ...]:
        if not items:
            return ()
        removed = [row.activation - one.value * loaded.sae.w_dec[one.concept.latent] for one in firings]
        stack = np.stack([row.activation, *removed]).astype(np.float32)
        ids = [item.item_id for item in items]
        lists = self._recommender.rank(row, stack, k=len(ids), deadline=deadline, candidates=ids)
        scores = [{item.item_id: item.score for item in ranked} for ranked in lists]
        return tuple(
            _removal(item, firings, [item.score - without[item.item_id] for without in scores[1:]]) for item in items
        )


def _removal(item: ScoredItem, firings: Sequence[Firing], losses: Sequence[float]) -> Attribution:
    rest = item.score - sum(losses)
    size = sum(abs(loss) for loss in losses) + abs(rest)
    parts = [
        Contribution(one.concept.id, loss, abs(loss) / size if size else 0.0)
        for one, loss in zip(firings, losses, strict=True)
    ]
    parts.sort(key=lambda part: -abs(part.score))
    return Attribution(item, 0.0, 0.0, tuple(parts), 0.0, rest)
