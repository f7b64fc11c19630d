"""`python -m recsae_recommender` without the steering code: the pipeline is given a steering that does nothing at all.

Not a setting of the product, which is why the benchmark replaces the class in its own process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from recsae.pipeline.triples import Triple
from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.main import run_service
from recsae.steering.delta import Steered
from recsae.steering.receipts import Receipt, UnsteeredReason
from recsae_recommender import app
from recsae_recommender.settings import RecommenderSettings


class NoSteering:
    """Stands where `ModelSteering` does. One receipt, made once, because a response has to carry some."""

    def __init__(self, recommender: OnnxRecommender, *_others: Any) -> None:
        """Keeps nothing but the version to name."""
        self._receipt = Receipt(UnsteeredReason.NO_PLAN, triple=Triple(model_version=recommender.version))

    def steer(self, activation: NDArray[np.float32], contexts: Sequence[Any], *_sizes: Any) -> Steered:
        """The activations as they are."""
        return Steered(activation, (self._receipt,) * len(contexts))

    def wait_for_plan(self, _timeout_s: float) -> bool:
        """None comes."""
        return False

    def close(self) -> None:
        """Nothing to close."""


def main() -> int:
    """Serves until it is ended."""
    with mock.patch.object(app, "ModelSteering", NoSteering):
        return run_service("recommender", RecommenderSettings, app.RecommenderApp)


if __name__ == "__main__":
    sys.exit(main())
