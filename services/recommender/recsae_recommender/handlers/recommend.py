"""Use case: rank items for one user. Recommend -> history -> batcher -> (trunk, plan, steer, head) -> receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from prometheus_client import Counter

from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.deadline import Deadline
from recsae.rpc.limits import MOST_ATTRIBUTES, MOST_ITEM_IDS, at_most, list_length
from recsae.steering.matching import SteerContext
from recsae.steering.receipts import UnsteeredReason
from recsae.steering.segments import Attribute
from recsae.telemetry.metrics import RecommenderMetrics
from recsae_recommender.exposures import Exposures
from recsae_recommender.models import ModelTable
from recsae_recommender.pipeline import Job, Ranking
from recsae_recommender.ranking import RankAsk
from recsae_recommender.rows import check_slate
from recsae_recommender.subjects import Subject


class RecommendQuery(NamedTuple):
    """One request for a list; `history` None = the stored one, `candidates` empty = every item."""

    request_id: str
    model: str = ""
    user_id: str = ""
    history: Sequence[str] | None = None
    k: int = 0
    exclude: Sequence[str] = ()
    candidates: Sequence[str] = ()
    include_seen: bool = False
    attributes: Mapping[str, Attribute] = MappingProxyType({})
    without_steering: bool = False
    deadline: Deadline = Deadline()


@dataclass(frozen=True)
class Recommendation:
    """A list and the model that made it."""

    recommender: OnnxRecommender
    ranking: Ranking


_NO_ITEMS = np.zeros(0, np.int64)


class RecommendHandler:
    """Ranks items for one user; steering never makes it fail."""

    def __init__(self, models: ModelTable, metrics: RecommenderMetrics, exposures: Exposures | None = None) -> None:
        """Keeps its collaborators; without `exposures` nothing is logged."""
        self._models = models
        self._metrics = metrics
        self._exposures = exposures
        self._counters: dict[tuple[str, UnsteeredReason], Counter] = {}

    def __call__(self, query: RecommendQuery) -> Recommendation:
        """The list for the query; InvalidRequestError, NotFoundError, ResourceExhaustedError as they say."""
        k = list_length(query.k)
        at_most(len(query.attributes), MOST_ATTRIBUTES, "attributes")
        model = self._models.get(query.model)
        subject = model.subjects.read(model.recommender, query.user_id, query.history, query.attributes)
        job = Job(
            history=subject.indices,
            context=SteerContext(query.user_id, query.request_id, subject.attributes),
            ask=_ask(model.recommender, query, subject, k),
            user=subject.known_as,
            bare=query.without_steering,
            deadline=query.deadline,
        )
        check_slate(model.recommender, job.ask)
        ranking = model.batcher.submit(job, query.deadline)
        self._count(model.recommender.name, ranking.receipt.reason)
        if self._exposures is not None and self._exposures.drawn():
            self._exposures.offer(model.recommender, ranking, user_id=query.user_id, request_id=query.request_id)
        return Recommendation(model.recommender, ranking)

    def _count(self, model: str, reason: UnsteeredReason) -> None:
        """Finding a counter by its labels takes longer than counting: it is found once."""
        counter = self._counters.get((model, reason))
        if counter is None:
            counter = self._counters[model, reason] = self._metrics.recommended.labels(model, reason)
        counter.inc()


def _ask(recommender: OnnxRecommender, query: RecommendQuery, subject: Subject, k: int) -> RankAsk:
    at_most(len(query.exclude), MOST_ITEM_IDS, "exclude_item_ids")
    at_most(len(query.candidates), MOST_ITEM_IDS, "candidate_item_ids")
    seen = _NO_ITEMS if query.include_seen else subject.indices
    excluded = np.concatenate([seen, recommender.bundle.index_of_known(query.exclude)]) if query.exclude else seen
    candidates = recommender.bundle.index_of(query.candidates) if query.candidates else None
    return RankAsk(k=k, exclude=excluded, candidates=candidates)
