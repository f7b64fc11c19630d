"""Observation never blocks and never fails a request: what cannot be sent is dropped and counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from recsae.rpc.client import channel
from recsae.telemetry.metrics import RecommenderMetrics
from recsae.telemetry.observing import Sample
from recsae_recommender.observer import Observer

SAMPLE = Sample("tiny", "0" * 16, "sequence", np.zeros(16, dtype=np.float32), steered=False)


class Observed:
    """An observer, its counters, and the channel it sends on."""

    def __init__(self, address: str, **values: Any) -> None:
        self.registry = CollectorRegistry()
        self.channel: grpc.Channel = channel(address)
        settings: dict[str, Any] = {"share": 1.0, "capacity": 100} | values
        self.observer = Observer(self.channel, RecommenderMetrics(self.registry), **settings)

    def dropped(self, reason: str) -> float:
        return self.registry.get_sample_value("recsae_observe_dropped_total", {"reason": reason}) or 0

    def sent(self) -> float:
        return self.registry.get_sample_value("recsae_observe_sent_total") or 0

    def close(self) -> None:
        self.observer.close()
        self.channel.close()


@pytest.fixture
def observe() -> Iterator[Callable[..., Observed]]:
    made: list[Observed] = []

    def start(address: str, **values: Any) -> Observed:
        made.append(Observed(address, **values))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_interpreter_that_hangs_costs_samples_not_time(
    observe: Callable[..., Observed], start_interpreter: Any
) -> None:
    interpreter = start_interpreter()
    interpreter.tell("hang")
    observed = observe(interpreter.address)
    for _ in range(2_000):
        observed.observer.offer(SAMPLE)
    # All but those in the ring (100) or in the one batch being sent (512): had an offer waited for a send, none.
    assert observed.dropped("buffer_full") >= 2_000 - 100 - 512


def test_rows_lost_while_the_interpreter_was_away_are_counted_and_later_ones_arrive(
    observe: Callable[..., Observed], start_interpreter: Any
) -> None:
    interpreter = start_interpreter()
    observed = observe(interpreter.address)
    interpreter.kill()
    observed.observer.offer(SAMPLE)
    until(lambda: observed.dropped("unavailable") == 1)
    again = start_interpreter(interpreter.port)
    end = time.monotonic() + 30
    while not observed.sent():
        assert time.monotonic() < end
        observed.observer.offer(SAMPLE)
        time.sleep(0.05)
    assert again.hear("observed")


def test_what_is_held_is_sent_on_close(observe: Callable[..., Observed], start_interpreter: Any) -> None:
    interpreter = start_interpreter()
    observed = observe(interpreter.address)
    for _ in range(7):
        observed.observer.offer(SAMPLE)
    observed.observer.close()
    assert observed.sent() == 7


def test_share_is_honoured(observe: Callable[..., Observed], start_interpreter: Any) -> None:
    interpreter = start_interpreter()
    chances = iter([0.05, 0.1, 0.5, 0.0999, 0.9])
    observed = observe(interpreter.address, share=0.1, chance=lambda: next(chances))
    for _ in range(5):
        observed.observer.offer(SAMPLE)
    observed.observer.close()
    assert observed.sent() == 2


def until(claim: Callable[[], bool]) -> None:
    """Polls a counter; it has no event."""
    end = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.01)
