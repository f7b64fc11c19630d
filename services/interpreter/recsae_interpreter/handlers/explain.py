"""Use case: which concepts fire for one activation, and what they contribute to each recommended item.

Embed (recommender) -> encode -> join the dictionary -> Rank (recommender) -> attribute. For dot-product heads the
parts add up to the score; for other heads a concept's part is what the score loses when the concept is taken out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from recsae.concepts.attribution import ScoreAttributor, refusal
from recsae.concepts.records import ConceptRecord
from recsae.errors import InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.rpc.deadline import Deadline
from recsae.sae.codes import Codes
from recsae_interpreter.library import Library
from recsae_interpreter.loading import LoadedTriple
from recsae_interpreter.metrics import InterpreterMetrics
from recsae_interpreter.recommender import ItemTable, Recommender, Row, ScoredItem

MOST_CONCEPTS = 256
MOST_ITEMS = 100
DEFAULT_ITEMS = 10


@dataclass(frozen=True)
class ExplainQuery:
    """Whom to explain: a user, a history, or an activation the caller has. 0 = every concept, ten items."""

    model: str = ""
    user_id: str = ""
    history: Sequence[str] | None = None
    row: Row | None = None
    concept_limit: int = 0
    item_limit: int = 0
    deadline: Deadline = field(default_factory=Deadline)


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


@dataclass(frozen=True)
class Explanation:
    """What fires, strongest first, and where scores come from; `refusal` says why not when it is not empty."""

    triple: Triple
    firings: tuple[Firing, ...]
    unexplained_share: float
    refusal: str
    items: tuple[Attribution, ...]
    history: tuple[str, ...]


class ExplainHandler:
    """Explains activations."""

    def __init__(self, library: Library, recommender: Recommender, metrics: InterpreterMetrics) -> None:
        """Keeps its collaborators."""
        self._library = library
        self._recommender = recommender
        self._metrics = metrics

    def __call__(self, query: ExplainQuery) -> Explanation:
        """The explanation; FailedPreconditionError when this model version has no promoted SAE."""
        _check(query)
        row = query.row or self._embed(query)
        loaded = self._library.version(row.model, row.model_version)
        x = row.activation[None]
        codes = loaded.sae.encode(x)
        share = float(loaded.sae.relative_error(x, loaded.sae.decode(codes))[0])
        refused = refusal(share, loaded.sae.error_p99)
        firings = _firings(loaded, codes)[: query.concept_limit or None]
        self._metrics.explained.labels(loaded.model, "refused" if refused else "yes").inc()
        items: tuple[Attribution, ...] = ()
        if not refused:
            items = self._attribute(loaded, row, codes, firings, query)
        return Explanation(loaded.triple, firings, share, refused, items, row.history)

    def _embed(self, query: ExplainQuery) -> Row:
        model = query.model or self._library.model("").model
        return self._recommender.embed(model, query.user_id, query.history, query.deadline)

    def _attribute(
        self,
        loaded: LoadedTriple,
        row: Row,
        codes: Codes,
        firings: tuple[Firing, ...],
        query: ExplainQuery,
    ) -> tuple[Attribution, ...]:
        k = query.item_limit or DEFAULT_ITEMS
        (items,) = self._recommender.rank(row, row.activation[None], k=k, deadline=query.deadline)
        table = self._recommender.items(row, query.deadline)
        if table is None:
            return self._by_removal(loaded, row, items, firings, query.deadline)
        return _exactly(loaded, row, codes, items, table, len(firings))

    def _by_removal(
        self,
        loaded: LoadedTriple,
        row: Row,
        items: list[ScoredItem],
        firings: tuple[Firing, ...],
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


def _check(query: ExplainQuery) -> None:
    if query.concept_limit > MOST_CONCEPTS:
        raise InvalidRequestError(f"concept_limit {query.concept_limit}; ask for at most {MOST_CONCEPTS}, 0 for all")
    if query.item_limit > MOST_ITEMS:
        raise InvalidRequestError(f"item_limit {query.item_limit}; ask for at most {MOST_ITEMS}")
    if query.row is None and not query.user_id and query.history is None:
        raise InvalidRequestError("no subject came; set user_id, history or activation")


def _firings(loaded: LoadedTriple, codes: Codes) -> tuple[Firing, ...]:
    """Concepts of the first row that fire, strongest (in units of their own p95) first."""
    strengths = loaded.dictionary.strengths(codes.indices, codes.values)[0]
    fires = np.flatnonzero(codes.values[0] > 0)
    order = fires[np.argsort(-strengths[fires], kind="stable")]
    return tuple(
        Firing(
            loaded.dictionary.by_latent(int(codes.indices[0, place])),
            float(codes.values[0, place]),
            float(strengths[place]),
        )
        for place in order
    )


def _exactly(
    loaded: LoadedTriple,
    row: Row,
    codes: Codes,
    items: list[ScoredItem],
    table: ItemTable,
    named: int,
) -> tuple[Attribution, ...]:
    strengths = loaded.dictionary.strengths(codes.indices, codes.values)[0]
    order = np.argsort(-strengths, kind="stable")  # the concepts named are the strongest, as in `_firings`
    attributor = ScoreAttributor(table.vectors, table.biases, loaded.sae.w_dec, loaded.sae.b_dec)
    parts = attributor.attribute(
        row.activation,
        codes.indices[0][order],
        codes.values[0][order],
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


def _removal(item: ScoredItem, firings: tuple[Firing, ...], losses: list[float]) -> Attribution:
    rest = item.score - sum(losses)
    size = sum(abs(loss) for loss in losses) + abs(rest)
    parts = [
        Contribution(one.concept.id, loss, abs(loss) / size if size else 0.0)
        for one, loss in zip(firings, losses, strict=True)
    ]
    parts.sort(key=lambda part: -abs(part.score))
    return Attribution(item, 0.0, 0.0, tuple(parts), 0.0, rest)
