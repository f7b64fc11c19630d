"""Use case: which concepts fire for one activation, and what they contribute to each recommended item.

Embed (recommender) -> encode -> join the dictionary -> rank and attribute (`attribute`), or a refusal in a sentence
when this activation is reconstructed worse than 99 in 100 were in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from recsae.concepts.attribution import refusal
from recsae.errors import InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.rpc.deadline import Deadline
from recsae.sae.codes import Codes
from recsae_interpreter.handlers.attribute import Attribution, Firing, ItemAttributor
from recsae_interpreter.library import Library
from recsae_interpreter.loading import LoadedTriple
from recsae_interpreter.metrics import InterpreterMetrics
from recsae_interpreter.recommender import Recommender, Row

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
        self._attributor = ItemAttributor(recommender)
        self._metrics = metrics

    def __call__(self, query: ExplainQuery) -> Explanation:
        """The explanation; FailedPreconditionError when this model version has no promoted SAE."""
        _check(query)
        row = query.row or self._embed(query)
        loaded = self._library.version(row.model, row.model_version)
        x = row.activation[None]
        codes = loaded.sae.encode(x)
        share = float(loaded.sae.relative_error(x, loaded.sae.decode(codes))[0])
        firings = _firings(loaded, codes)
        named = query.concept_limit or len(firings)
        refused = refusal(share, loaded.sae.error_p99)
        self._metrics.explained.labels(loaded.model, "refused" if refused else "yes").inc()
        items: tuple[Attribution, ...] = ()
        if not refused:
            k = query.item_limit or DEFAULT_ITEMS
            items = self._attributor.attribute(loaded, row, firings, named, k, query.deadline)
        return Explanation(loaded.triple, firings[:named], share, refused, items, row.history)

    def _embed(self, query: ExplainQuery) -> Row:
        model = query.model or self._library.model("").model
        return self._recommender.embed(model, query.user_id, query.history, query.deadline)


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
    return tuple(
        Firing(
            loaded.dictionary.by_latent(int(codes.indices[0, place])),
            float(codes.values[0, place]),
            float(strengths[place]),
        )
        for place in fires[np.argsort(-strengths[fires], kind="stable")]
    )
