"""Steering of one model: the plan in force applied in process, or the interpreter asked, with a receipt per row.

Whatever goes wrong here, the batch goes on unsteered and the receipts say why. Not here: following plans
(`recsae.steering.follower`), asking the interpreter (`recsae.steering.remote`) and what a plan does to a row
(`recsae.steering.delta`).
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
from recsae.rpc.client import channel, check_address
from recsae.rpc.deadline import Deadline
from recsae.steering.delta import Steered, unsteered
from recsae.steering.follower import PlanFollower
from recsae.steering.matching import SteerContext
from recsae.steering.receipts import Receipt, UnsteeredReason
from recsae.steering.remote import RemoteLimits, RemoteSteering, SteerCall
from recsae.steering.wire_steer import SteeredModel
from recsae.telemetry.metrics import RecommenderMetrics
from recsae_recommender.settings import RecommenderSettings

_log = structlog.get_logger(__name__)
_REPORT_PERIOD_S = 10.0


def interpreter_client(settings: RecommenderSettings, *, retries: bool = True) -> grpc.Channel:
    """A channel to the interpreter; InvalidRequestError when none can be made: a certificate, an address."""
    check_address(settings.interpreter)
    return channel(settings.interpreter, replace(settings.client_options(), retries=retries))


def try_interpreter_client(settings: RecommenderSettings) -> grpc.Channel | None:
    """As `interpreter_client`, None where there is no interpreter or no client for it: nobody's list waits for it."""
    if not settings.interpreter:
        return None
    try:
        return interpreter_client(settings)
    except Exception as error:
        _log.error("interpreter_client_failed", exc_info=error)
        return None


class ModelSteering:
    """Steers one model version, by the plans it follows or by asking for each batch."""

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
        self._remote: RemoteSteering | None = None
        self._absent = UnsteeredReason.NO_CLIENT if settings.interpreter else UnsteeredReason.NO_PLAN
        if settings.interpreter and settings.steering == "rpc":
            self._remote = _remote(recommender, settings, metrics)
        elif interpreter is not None:
            self._follower = _follower(recommender, interpreter, settings, metrics)

    def steer(
        self,
        activation: NDArray[np.float32],
        contexts: Sequence[SteerContext],
        sizes: Sequence[int],
        deadlines: Sequence[Deadline] = (),
    ) -> Steered:
        """The activations float32 [r, d] to rank by, and a receipt per request; never raises.

        Request i owns the next `sizes[i]` rows and has until `deadlines[i]` (() = no end), which bounds a call to the
        interpreter. Where no policy matches, the very array given comes back.
        """
        requests = len(contexts)
        try:
            steered = self._apply(activation, contexts, sizes, deadlines)
        except Exception as error:
            steered = replace(unsteered(activation, UnsteeredReason.ERROR, rows=requests), error=error)
        if steered.error is not None:
            self._report(steered.error)
        if all(receipt.triple.model_version for receipt in steered.receipts):
            return steered
        # Receipts of one reason are mostly one object: it is named once.
        named = {receipt: self._named(receipt) for receipt in set(steered.receipts)}
        return replace(steered, receipts=tuple(named[receipt] for receipt in steered.receipts))

    def wait_for_plan(self, timeout_s: float) -> bool:
        """Waits for the first plan, or the connection to ask by; False without one or when it took longer."""
        if self._remote is not None:
            return self._remote.wait_until_connected(timeout_s)
        return self._follower is not None and self._follower.wait_for_revision(1, timeout_s)

    def close(self) -> None:
        """Stops following or asking."""
        if self._follower is not None:
            self._follower.close()
        if self._remote is not None:
            self._remote.close()

    def _apply(
        self,
        activation: NDArray[np.float32],
        contexts: Sequence[SteerContext],
        sizes: Sequence[int],
        deadlines: Sequence[Deadline],
    ) -> Steered:
        requests = len(contexts)
        if self._kill_switch:
            return unsteered(activation, UnsteeredReason.KILL_SWITCH, rows=requests)
        if self._remote is not None:
            return self._remote.steer(activation, contexts, sizes, deadlines)
        if self._follower is None:
            return unsteered(activation, self._absent, rows=requests)
        plan = self._follower.current()
        if isinstance(plan, UnsteeredReason):
            return unsteered(activation, plan, rows=requests)
        if list(sizes).count(1) == requests:
            return plan.steer(activation, contexts, self._follower.now())
        return plan.steer_groups(activation, contexts, sizes, self._follower.now())

    def _report(self, error: Exception) -> None:
        """Logs at most one failure a period; the metric counts each."""
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_PERIOD_S:
            self._reported_at = now
            _log.error("steering_failed", model=self._model, exc_info=error)

    def _named(self, receipt: Receipt) -> Receipt:
        """The receipt with this model's version, which a receipt without a plan does not know."""
        return receipt if receipt.triple.model_version else replace(receipt, triple=self._bare)


def _follower(
    recommender: OnnxRecommender, interpreter: grpc.Channel, settings: RecommenderSettings, metrics: RecommenderMetrics
) -> PlanFollower:
    name = recommender.name
    follower = PlanFollower(
        interpreter,
        name,
        recommender.version,
        watcher=f"{socket.gethostname()}:{settings.port}",
        max_age_s=settings.plan_max_age_s,
        on_rejected=metrics.plan_rejected.labels(name).inc,
    )
    metrics.plan_revision.labels(name).set_function(lambda: follower.revision)
    metrics.plan_age.labels(name).set_function(lambda: follower.age_s)
    metrics.plan_clock_offset.labels(name).set_function(lambda: follower.clock_offset_s)
    return follower.start()


def _remote(recommender: OnnxRecommender, settings: RecommenderSettings, metrics: RecommenderMetrics) -> RemoteSteering:
    name = recommender.name
    duration, given = metrics.steer_duration.labels(name), metrics.steer_given.labels(name)

    def count(call: SteerCall) -> None:
        metrics.steer_calls.labels(name, call.outcome.value).inc()
        duration.observe(call.seconds)
        given.observe(call.given_s)

    remote = RemoteSteering(
        lambda: interpreter_client(settings, retries=False),
        SteeredModel(name, recommender.version, recommender.hooks[0].name),
        limits=RemoteLimits(settings.steer_timeout_s, settings.steer_norm_budget),
        on_call=count,
    )
    metrics.steer_breaker.labels(name).set_function(lambda: remote.breaker_state)
    return remote
