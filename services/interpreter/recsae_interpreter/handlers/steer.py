"""Use case: steering for recommenders that cannot hold a plan. The same plan and the same function as in process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import time

import numpy as np
import structlog
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.steering.delta import Steered, unsteered
from recsae.steering.matching import SteerContext
from recsae.steering.receipts import Receipt, UnsteeredReason
from recsae_interpreter.board import PlanBoard
from recsae_interpreter.library import Library
from recsae_interpreter.metrics import InterpreterMetrics

MOST_ROWS = 4_096

_log = structlog.get_logger(__name__)


class SteerHandler:
    """Applies the plan in force to activations of one model version."""

    def __init__(
        self,
        board: PlanBoard,
        library: Library,
        metrics: InterpreterMetrics,
        *,
        state_age_s: Callable[[], float] = lambda: 0.0,
        max_age_s: float = math.inf,
    ) -> None:
        """`state_age_s` says how long ago the state server last answered: from `max_age_s` on nothing is steered."""
        self._board = board
        self._state_age_s = state_age_s
        self._max_age_s = max_age_s
        self._library = library
        self._metrics = metrics

    def __call__(
        self, model: str, hook: str, model_version: str, x: NDArray[np.float32], contexts: Sequence[SteerContext]
    ) -> Steered:
        """Rows of `x` float32 [n, d] steered, with a receipt each; a version without promoted SAE stays as it is.

        FailedPreconditionError for a hook that can only be read.
        """
        if len(x) > MOST_ROWS:
            raise InvalidRequestError(f"{len(x)} rows came; send at most {MOST_ROWS} in one call")
        if len(contexts) != len(x):
            raise InvalidRequestError(f"{len(contexts)} contexts came for {len(x)} rows; send one per row")
        address = self._library.address(model, hook)
        loaded = self._library.find(address, model_version)
        if loaded is not None and not loaded.steerable:
            raise FailedPreconditionError(loaded.read_only("steer the activations of the model's first hook"))
        posting = self._board.posting
        steerer = posting.steerers.get((address, model_version))
        if steerer is None:
            bare = Receipt(UnsteeredReason.NO_SAE_FOR_MODEL, (), posting.revision, Triple(model_version=model_version))
            self._metrics.steered.labels("unknown", UnsteeredReason.NO_SAE_FOR_MODEL.value).inc(len(x))
            return Steered(x, (bare,) * len(x))
        dim = steerer.plan.dim
        if x.shape[1] != dim:
            raise InvalidRequestError(f"activations have length {x.shape[1]}, model {address} has {dim} at its hook")
        if self._state_age_s() >= self._max_age_s:  # as a replica that holds the plan would
            self._metrics.steered.labels(address, UnsteeredReason.PLAN_TOO_OLD.value).inc(len(x))
            return unsteered(x, UnsteeredReason.PLAN_TOO_OLD, steerer.plan)
        steered = steerer.steer(x, contexts, time()) if len(x) else unsteered(x, UnsteeredReason.NONE_MATCHED)
        if steered.error is not None:
            _log.error("steering_failed", model=address, exc_info=steered.error)
        for receipt in steered.receipts:
            self._metrics.steered.labels(address, receipt.reason.value).inc()
        return steered
