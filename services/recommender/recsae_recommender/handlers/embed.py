"""Use case: the activations of one user or history, as `Recommend` would compute them, before any steering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.recommenders.description import Hook
from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.limits import DEFAULT_K, MOST_ATTRIBUTES, MOST_PAIRED, at_most
from recsae.steering.segments import Attribute
from recsae_recommender.models import ModelTable
from recsae_recommender.ranking import RankAsk
from recsae_recommender.rows import check_slate, embed_rows
from recsae_recommender.subjects import Subject

# Pairs shown where a caller names no candidates: what a list of the default length holds.
_BEST = DEFAULT_K


@dataclass(frozen=True)
class EmbedQuery:
    """Whose activation; `history` None = the stored one, `candidates` of a model that scores pairs."""

    model: str = ""
    hook: str = ""
    user_id: str = ""
    history: Sequence[str] | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    candidates: Sequence[str] = ()


@dataclass(frozen=True)
class EmbeddedSubject:
    """Activations float32 [r, d] of one subject, with `passthrough` [r, ...]; `item_ids` of pairs, one per row."""

    recommender: OnnxRecommender
    hook: Hook
    activations: NDArray[np.float32]
    passthrough: Mapping[str, NDArray[Any]]
    subject: Subject
    item_ids: Sequence[str] = ()


class EmbedHandler:
    """Computes the activations of single subjects."""

    def __init__(self, models: ModelTable) -> None:
        """Keeps its collaborator."""
        self._models = models

    def __call__(self, query: EmbedQuery) -> EmbeddedSubject:
        """The activations; NotFoundError for an unknown user, model or hook."""
        at_most(len(query.attributes), MOST_ATTRIBUTES, "attributes")
        model = self._models.get(query.model)
        recommender = model.recommender
        hook = recommender.hook(query.hook)
        subject = model.subjects.read(recommender, query.user_id, query.history, query.attributes)
        inputs = recommender.inputs([subject.indices], [subject.known_as], [subject.attributes])
        if hook.rows != "pair":
            if query.candidates:
                raise InvalidRequestError(
                    f"hook {hook.name!r} of model {recommender.name} has no row per candidate; send no candidates"
                )
            embedded = recommender.embed(inputs, hook=hook.name)
            crossing = {name: np.repeat(one, hook.interests, axis=0) for name, one in embedded.passthrough.items()}
            rows = embedded.activation.reshape(-1, hook.dim)
            return EmbeddedSubject(recommender, hook, rows, crossing, subject)
        candidates = self._candidates(recommender, subject, query.candidates)
        pairs = recommender.embed_pairs(inputs, candidates[None], hook=hook.name)
        crossing = {name: one[0] for name, one in pairs.passthrough.items()}
        ids = recommender.bundle.ids_of(candidates.tolist())
        return EmbeddedSubject(recommender, hook, pairs.activation[0], crossing, subject, ids)

    def _candidates(self, recommender: OnnxRecommender, subject: Subject, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """Those asked for, int64 [c], or the best ten of every item."""
        at_most(len(item_ids), MOST_PAIRED, "candidates")
        if item_ids:
            return recommender.bundle.index_of(item_ids)
        ask = RankAsk(k=_BEST, exclude=np.unique(subject.indices))
        check_slate(recommender, ask)
        inputs = recommender.inputs([subject.indices], [subject.known_as], [subject.attributes])
        rows = embed_rows(recommender, inputs, [ask])
        ranked = recommender.rank(rows.lists(rows.activation), rows.passthrough, k=_BEST, candidates=rows.candidates)
        return ranked.row(0)[0]
