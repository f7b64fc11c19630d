"""The circuit breaker, by a clock and a chance of the test's own."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from recsae.steering.breaker import Breaker, BreakerLimits, BreakerState

LIMITS = BreakerLimits(failures=3, pause_s=1.0, longest_pause_s=8.0, probe_s=5.0)


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(LIMITS, clock=clock, uniform=lambda low, high: (low + high) / 2)


def state(breaker: Breaker) -> BreakerState:
    return breaker.state


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        ticket = breaker.admit()
        assert ticket is not None
        breaker.failed(ticket)


def test_it_opens_after_failures_in_a_row_and_a_success_between_starts_the_count_anew(breaker: Breaker) -> None:
    fail(breaker, 2)
    ticket = breaker.admit()
    assert ticket is not None
    breaker.succeeded(ticket)
    fail(breaker, 2)
    assert state(breaker) is BreakerState.CLOSED
    fail(breaker)
    assert state(breaker) is BreakerState.OPEN
    assert breaker.admit() is None


def test_after_the_pause_one_call_probes_and_its_success_closes(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 0.99
    assert breaker.admit() is None
    clock.now += 0.02
    probe = breaker.admit()
    assert probe is not None
    assert state(breaker) is BreakerState.PROBING
    assert [breaker.admit() for _ in range(10)] == [None] * 10, "one probe at a time"
    breaker.succeeded(probe)
    assert state(breaker) is BreakerState.CLOSED
    fail(breaker, 2)
    assert state(breaker) is BreakerState.CLOSED, "failures before it opened are forgotten"


def test_each_failed_probe_doubles_the_pause_up_to_the_longest(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    for pause in (1.0, 2.0, 4.0, 8.0, 8.0):
        clock.now += pause - 0.01
        assert breaker.admit() is None
        clock.now += 0.02
        fail(breaker)


def test_calls_that_began_before_it_opened_neither_close_nor_lengthen(breaker: Breaker, clock: Clock) -> None:
    late = [breaker.admit() for _ in range(2)]
    fail(breaker, 3)
    success, failure = late
    assert success is not None
    assert failure is not None
    breaker.succeeded(success)
    assert state(breaker) is BreakerState.OPEN
    clock.now += 1.01
    probe = breaker.admit()
    assert probe is not None
    breaker.failed(failure)
    assert state(breaker) is BreakerState.PROBING
    breaker.succeeded(probe)
    assert state(breaker) is BreakerState.CLOSED


def test_a_probe_that_says_nothing_about_the_partner_leaves_the_next_caller_to_probe(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker, 3)
    clock.now += 1.01
    probe = breaker.admit()
    assert probe is not None
    breaker.withdrawn(probe)
    assert state(breaker) is BreakerState.OPEN
    assert breaker.admit() is not None


def test_a_probe_that_never_reports_is_given_up(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.01
    assert breaker.admit() is not None
    clock.now += 4.9
    assert breaker.admit() is None
    clock.now += 0.2
    assert breaker.admit() is not None


def test_a_thousand_clients_that_lost_a_partner_together_do_not_come_back_together() -> None:
    clock, chance = Clock(), random.Random(5)
    crowd = [Breaker(LIMITS, clock=clock, uniform=chance.uniform) for _ in range(1000)]
    for one in crowd:
        fail(one, 3)
    probes: list[int] = []
    for _ in range(300):  # thirty seconds with the partner still away, a tenth of a second at a time
        clock.now += 0.1
        tickets = [(one, ticket) for one in crowd if (ticket := one.admit()) is not None]
        probes.append(len(tickets))
        for one, ticket in tickets:
            one.failed(ticket)
    # Without jitter every probe of a round would fall into one of these tenths: 1,000 at once.
    assert max(probes) < 150
    assert max(probes[100:]) < 40, "and they drift further apart with every round"
    assert sum(probes[-160:]) > 1000, "everybody still looks, each within the longest pause and a half"
