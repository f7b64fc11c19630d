"""What one model does with a batch of requests, in a straight line: trunk, plan, steering, head, observation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.recommenders.runtime import OnnxRecommender
from recsae.steering.matching import SteerContext
from recsae.steering.receipts import Receipt
from recsae_recommender.observer import Sample
from recsae_recommender.ranking import RankAsk, RankedItem, rank_rows
from recsae_recommender.steering import ModelSteering


@dataclass(frozen=True)
class Job:
    """One request as the model sees it: history (item indices, oldest first), whom to steer for, what to rank."""

    history: NDArray[np.int64]
    context: SteerContext
    ask: RankAsk


@dataclass(frozen=True)
class Ranking:
    """The list of one request and the receipt of its steering."""

    items: list[RankedItem]
    receipt: Receipt


class ModelPipeline:
    """Computes batches for one model."""

    def __init__(
        self, recommender: OnnxRecommender, steering: ModelSteering, observe: Callable[[Sample], None]
    ) -> None:
        """`observe` takes samples and must neither block nor raise."""
        self._recommender = recommender
        self._steering = steering
        self._observe = observe

    def serve(self, jobs: Sequence[Job]) -> list[Ranking]:
        """The rankings of a batch, in order."""
        histories = self._recommender.pad([job.history for job in jobs])
        embedded = self._recommender.embed(histories)
        steered = self._steering.steer(embedded.activation, [job.context for job in jobs])
        lists = rank_rows(self._recommender, steered.activation, embedded.passthrough, [job.ask for job in jobs])
        self._sample(embedded.activation, steered.receipts)
        return [Ranking(items, receipt) for items, receipt in zip(lists, steered.receipts, strict=True)]

    def _sample(self, activation: NDArray[np.float32], receipts: Sequence[Receipt]) -> None:
        """Offers what the trunk computed, before steering: drift asks about the model, not about policies."""
        hook = self._recommender.hooks[0].name
        for row, receipt in zip(activation, receipts, strict=True):
            self._observe(Sample(self._recommender.name, self._recommender.version, hook, row, bool(receipt.applied)))
