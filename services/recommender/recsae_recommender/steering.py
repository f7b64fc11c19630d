"""Steering of one model, in process: the plan in force applied to a batch, with a receipt per row.

Whatever goes wrong here, the batch goes on unsteered and the receipts say why. Not here: following plans
(`recsae.steering.follower`) and what a plan does to a row (`recsae.steering.delta`).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import replace

import grpc
import numpy as np
import structlog
from numpy.typing import NDArray

from recsae.pipeline.triples import Triple
from recsae.recommenders.runtime import OnnxRecommender
from recsae.steering.delta import Steered, unsteered
from recsae.steering.follower import PlanFollower
from recsae.steering.matching import SteerContext
from recsae.steering.receipts import Receipt, UnsteeredReason
from recsae.telemetry.metrics import RecommenderMetrics
from recsae_recommender.settings import RecommenderSettings

_log = structlog.get_logger(__name__)
_REPORT_PERIOD_S = 10.0


class ModelSteering:
    """Follows the plans of one model version and applies them."""

    def __init__(
        self,
        recommender: OnnxRecommender,
        interpreter: grpc.Channel | None,
        settings: RecommenderSettings,
        metrics: RecommenderMetrics,
    ) -> None:
        """Without an interpreter no plan ever comes; with one, following starts at once and blocks nothing."""
        self._model = recommender.name
        self._bare = Triple(model_version=recommender.version)
        self._kill_switch = settings.kill_switch
        self._reported_at = -_REPORT_PERIOD_S
        self._follower: PlanFollower | None = None
        if interpreter is None:
            return
        self._follower = follower = PlanFollower(
            interpreter,
            recommender.name,
            recommender.version,
            watcher=f"{socket.gethostname()}:{settings.port}",
            max_age_s=settings.plan_max_age_s,
        ).start()
        metrics.plan_revision.labels(recommender.name).set_function(lambda: follower.revision)
        metrics.plan_age.labels(recommender.name).set_function(lambda: follower.age_s)

    def steer(self, activation: NDArray[np.float32], contexts: Sequence[SteerContext], sizes: Sequence[int]) -> Steered:
        """The activations float32 [r, d] to rank by, and a receipt per request; never raises.

        Request i owns the next `sizes[i]` rows. Where no policy matches, the very array given comes back.
        """
        requests = len(contexts)
        try:
            steered = self._apply(activation, contexts, sizes)
        except Exception as error:
            steered = replace(unsteered(activation, UnsteeredReason.ERROR, rows=requests), error=error)
        if steered.error is not None:
            self._report(steered.error)
        return replace(steered, receipts=tuple(self._named(receipt) for receipt in steered.receipts))

    def wait_for_plan(self, timeout_s: float) -> bool:
        """Waits for the first plan; False when there is no interpreter or it took longer."""
        return self._follower is not None and self._follower.wait_for_revision(1, timeout_s)

    def close(self) -> None:
        """Stops following."""
        if self._follower is not None:
            self._follower.close()

    def _apply(
        self, activation: NDArray[np.float32], contexts: Sequence[SteerContext], sizes: Sequence[int]
    ) -> Steered:
        requests = len(contexts)
        if self._kill_switch:
            return unsteered(activation, UnsteeredReason.KILL_SWITCH, rows=requests)
        plan = self._follower.current() if self._follower is not None else UnsteeredReason.NO_PLAN
        if isinstance(plan, UnsteeredReason):
            return unsteered(activation, plan, rows=requests)
        if all(size == 1 for size in sizes):
            return plan.steer(activation, contexts, time.time())
        return plan.steer_groups(activation, contexts, sizes, time.time())

    def _report(self, error: Exception) -> None:
        """Logs at most one failure a period; the metric counts each."""
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_PERIOD_S:
            self._reported_at = now
            _log.error("steering_failed", model=self._model, exc_info=error)

    def _named(self, receipt: Receipt) -> Receipt:
        """The receipt with this model's version, which a receipt without a plan does not know."""
        return receipt if receipt.triple.model_version else replace(receipt, triple=self._bare)
