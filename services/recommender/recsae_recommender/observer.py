"""The sampler of live activations, with this service's settings and metrics.

Not here: what it does (`recsae.telemetry.observing`).
"""

from __future__ import annotations

import random
from collections.abc import Callable

import grpc

from recsae.telemetry.metrics import RecommenderMetrics
from recsae.telemetry.observing import ActivationSampler, Sample


class Observer:
    """Takes a share of what it is offered and sends it to the interpreter from the background."""

    def __init__(
        self,
        channel: grpc.Channel,
        metrics: RecommenderMetrics,
        *,
        share: float,
        capacity: int,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Samples `share` of what is offered; holds `capacity` rows and drops the oldest beyond."""
        self._sampler = ActivationSampler(
            channel,
            share=share,
            capacity=capacity,
            chance=chance,
            on_sent=metrics.observe_sent.inc,
            on_dropped=lambda reason, rows: metrics.observe_dropped.labels(reason).inc(rows),
        )

    def offer(self, sample: Sample) -> None:
        """Takes the sample or drops it; takes microseconds and never raises."""
        if self._sampler.drawn(1):
            self._sampler.offer(sample)

    def close(self) -> None:
        """Sends what is held once more and ends the thread."""
        self._sampler.close()
