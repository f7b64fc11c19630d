"""Where the score of each recommended item comes from, concept by concept, for a subject that can be explained.

For dot-product heads the parts are exact (`recsae.concepts.attribution`); for other heads a concept's part is what
the score loses when the concept is taken out (`removal`), and the rest is unexplained.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.attribution import ScoreAttributor
from recsae.concepts.records import ConceptRecord
from recsae.errors import FailedPreconditionError
from recsae.pipeline.triples import Triple
from recsae.rpc.deadline import Deadline
from recsae_interpreter.handlers.removal import losses
from recsae_interpreter.loading import LoadedTriple
from recsae_interpreter.readings import HeadRows, ItemTable, Reading, ScoredItem
from recsae_interpreter.recommender import Recommender

# An attributor holds the catalogue's mean vector, which takes longer to compute than an explanation.
_ATTRIBUTORS_KEPT = 4


@dataclass(frozen=True)
class Firing:
    """A concept that fires: `value`, `strength` = that over its p95, and the value in each row it fires `at`."""

    concept: ConceptRecord
    value: float
    strength: float
    at: Mapping[int, float]


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
    """Ranks for a reading and splits the scores."""

    def __init__(self, recommender: Recommender) -> None:
        """Keeps its collaborator."""
        self._recommender = recommender
        self._kept: OrderedDict[Triple, tuple[ItemTable, ScoreAttributor]] = OrderedDict()
        self._lock = threading.Lock()

    def attribute(
        self,
        loaded: LoadedTriple,
        reading: Reading,
        used: NDArray[np.bool_],
        firings: Sequence[Firing],
        named: int,
        k: int,
        deadline: Deadline,
    ) -> tuple[Attribution, ...]:
        """The best `k` items with their parts; the first `named` of all `firings` get a part of their own.

        Pairs whose own row is not `used` bool [n] are left out.
        """
        (items,) = self._recommender.rank(reading, [HeadRows.of(reading)], k=k, deadline=deadline)
        if reading.rows == "pair":
            known = {item_id for item_id, good in zip(reading.item_ids, used.tolist(), strict=True) if good}
            items = [item for item in items if item.item_id in known]
        table = self._recommender.items(reading, deadline) if reading.rows == "subject" else None
        if table is not None:
            return self._exactly(loaded, reading, items, table, firings, named)
        return self._by_removal(loaded, reading, items, firings[:named], deadline)

    def _exactly(
        self,
        loaded: LoadedTriple,
        reading: Reading,
        items: Sequence[ScoredItem],
        table: ItemTable,
        firings: Sequence[Firing],
        named: int,
    ) -> tuple[Attribution, ...]:
        if strange := next((item.item_id for item in items if item.item_id not in table.index_of), None):
            raise FailedPreconditionError(
                f"the recommender ranked {strange!r}, which is not in the items of version {reading.model_version}; "
                "it may be changing versions: try again"
            )
        parts = self._attributor(loaded, table).attribute(
            reading.activations[0],
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
        reading: Reading,
        items: Sequence[ScoredItem],
        firings: Sequence[Firing],
        deadline: Deadline,
    ) -> tuple[Attribution, ...]:
        found = losses(
            self._recommender,
            reading,
            items,
            [(one.at, loaded.sae.w_dec[one.concept.latent]) for one in firings],
            deadline,
        )
        return tuple(
            _removal(item, [(firings[at].concept.id, loss) for at, loss in lost.items()])
            for item, lost in zip(items, found, strict=True)
        )


def _removal(item: ScoredItem, lost: Sequence[tuple[str, float]]) -> Attribution:
    rest = item.score - sum(loss for _, loss in lost)
    size = sum(abs(loss) for _, loss in lost) + abs(rest)
    parts = [Contribution(concept, loss, abs(loss) / size if size else 0.0) for concept, loss in lost]
    parts.sort(key=lambda part: -abs(part.score))
    return Attribution(item, 0.0, 0.0, tuple(parts), 0.0, rest)
