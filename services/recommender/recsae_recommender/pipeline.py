"""What one model does with a batch of requests, in a straight line: trunk, plan, steering, head, observation."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.deadline import Deadline
from recsae.steering.delta import Steered
from recsae.steering.matching import SteerContext
from recsae.steering.receipts import Receipt
from recsae.telemetry.observing import Sample
from recsae_recommender.ranking import RankAsk, RankedList, rank_rows
from recsae_recommender.rows import EmbeddedRows, embed_rows
from recsae_recommender.shadows import ShadowRows, shadow_rows
from recsae_recommender.steering import ModelSteering
from recsae_recommender.unwanted import steer_wanted


class Job(NamedTuple):
    """One request as the model sees it: history (item indices, oldest first), whom to steer for, what to rank.

    `user` is the id the model may know; the context's attributes are those it may read. `bare`: no policy holds.
    `deadline` bounds the time an interpreter may take to steer it.
    """

    history: NDArray[np.int64]
    context: SteerContext
    ask: RankAsk
    user: str = ""
    bare: bool = False
    deadline: Deadline = Deadline()


class Ranking(NamedTuple):
    """The list of one request, the receipt of its steering, and what shadow policies would have made of it."""

    items: RankedList
    receipt: Receipt
    shadow: ShadowRows | None = None


class ModelPipeline:
    """Computes batches for one model."""

    def __init__(
        self, recommender: OnnxRecommender, steering: ModelSteering, observe: Callable[[Sample], None] | None
    ) -> None:
        """`observe` takes samples and must neither block nor raise; None = nobody asks for any."""
        self._recommender = recommender
        self._steering = steering
        self._observe = observe

    def serve(self, jobs: Sequence[Job]) -> list[Ranking]:
        """The rankings of a batch, in order."""
        contexts, asks = [job.context for job in jobs], [job.ask for job in jobs]
        inputs = self._recommender.inputs(
            [job.history for job in jobs], [job.user for job in jobs], [context.attributes for context in contexts]
        )
        rows = embed_rows(self._recommender, inputs, asks)
        steered = self._steer(rows, jobs, contexts)
        lists = rank_rows(self._recommender, rows.lists(steered.activation), rows.passthrough, asks, rows.candidates)
        self._sample(rows, steered.receipts)
        pairs = zip(lists, steered.receipts, strict=True)
        if not steered.shadows:
            return [Ranking(items, receipt) for items, receipt in pairs]
        shadows = shadow_rows(rows, steered.shadows, asks)
        return [Ranking(items, receipt, shadows.get(place)) for place, (items, receipt) in enumerate(pairs)]

    def _steer(self, rows: EmbeddedRows, jobs: Sequence[Job], contexts: Sequence[SteerContext]) -> Steered:
        deadlines = [job.deadline for job in jobs]
        if not any(job.bare for job in jobs):
            return self._steering.steer(rows.activation, contexts, rows.sizes, deadlines)

        def steer(activation: NDArray[np.float32], places: Sequence[int]) -> Steered:
            own, sizes = [contexts[place] for place in places], [rows.sizes[place] for place in places]
            return self._steering.steer(activation, own, sizes, [deadlines[place] for place in places])

        wanted = np.array([not job.bare for job in jobs])
        return steer_wanted(steer, rows.activation, rows.sizes, wanted, self._recommender.version)

    def _sample(self, rows: EmbeddedRows, receipts: Sequence[Receipt]) -> None:
        """Offers what the trunk computed, before steering: drift asks about the model, not about policies.

        Of a request with several rows one at random, so that each request weighs the same.
        """
        if self._observe is None:
            return
        name, version, hook = self._recommender.name, self._recommender.version, self._recommender.hooks[0].name
        end = 0
        for size, receipt in zip(rows.sizes, receipts, strict=True):
            end += size
            if size:
                row = rows.activation[end - 1]
                if size > 1:  # a copy: a sample that waits to be sent must not hold the rows of all candidates
                    row = rows.activation[end - 1 - random.randrange(size)].copy()
                self._observe(Sample(name, version, hook, row, bool(receipt.applied)))
