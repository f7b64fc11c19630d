"""Use case: the activation of one user or history, as `Recommend` would compute it, before any steering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recsae.recommenders.runtime import Embedded, OnnxRecommender
from recsae_recommender.handlers.hooks import check_hook
from recsae_recommender.models import ModelTable
from recsae_recommender.subjects import Subject, SubjectReader


@dataclass(frozen=True)
class EmbedQuery:
    """Whose activation; `history` None = the stored one."""

    model: str = ""
    hook: str = ""
    user_id: str = ""
    history: Sequence[str] | None = None


@dataclass(frozen=True)
class EmbeddedSubject:
    """An activation float32 [1, d] and what it was computed from."""

    recommender: OnnxRecommender
    hook: str
    embedded: Embedded
    subject: Subject


class EmbedHandler:
    """Computes single activations."""

    def __init__(self, models: ModelTable, subjects: SubjectReader) -> None:
        """Keeps its collaborators."""
        self._models = models
        self._subjects = subjects

    def __call__(self, query: EmbedQuery) -> EmbeddedSubject:
        """The activation; NotFoundError for an unknown user, model or hook."""
        recommender = self._models.get(query.model).recommender
        hook = check_hook(recommender, query.hook)
        subject = self._subjects.read(recommender, query.user_id, query.history)
        embedded = recommender.embed(recommender.pad([subject.indices]))
        return EmbeddedSubject(recommender, hook.name, embedded, subject)
