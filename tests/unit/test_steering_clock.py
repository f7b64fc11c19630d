"""The interpreter's clock as a replica estimates it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from recsae.steering.clock import PartnerClock
from recsae.steering.held_plan import HeldPlan
from recsae.steering.plans import PlanSet
from recsae.steering.receipts import UnsteeredReason


@dataclass
class Times:
    """Both clocks of a replica; `wall` may be set by somebody, `steady` may not."""

    steady: float = 5_000.0
    wall: float = 1_700_000_000.0

    def passes(self, seconds: float) -> None:
        self.steady += seconds
        self.wall += seconds


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def clock(times: Times) -> PartnerClock:
    return PartnerClock(lambda: times.steady, lambda: times.wall)


def test_before_anything_was_heard_it_is_the_own_time(clock: PartnerClock, times: Times) -> None:
    times.passes(3)
    assert (clock.now(), clock.offset_s) == (times.wall, 0.0)


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 3600.0])
def test_it_follows_the_partner_however_far_off_the_own_clock_is(
    clock: PartnerClock, times: Times, ahead: float
) -> None:
    clock.heard(times.wall + ahead)
    times.passes(7)
    assert clock.now() == pytest.approx(times.wall + ahead, abs=1e-3)
    assert clock.offset_s == pytest.approx(ahead, abs=1e-3)


def test_the_own_clock_being_set_moves_nothing_but_the_offset(clock: PartnerClock, times: Times) -> None:
    clock.heard(times.wall)
    now = clock.now()
    times.wall -= 86_400
    assert clock.now() == now
    assert clock.offset_s == pytest.approx(86_400)


def test_messages_that_were_long_under_way_do_not_set_it_back(clock: PartnerClock, times: Times) -> None:
    for late in (0.001, 0.002, 4.0, 2.0):
        clock.heard(times.wall - late)
        times.passes(2)
    assert clock.now() == pytest.approx(times.wall, abs=0.01)


@pytest.mark.parametrize("wrong", [-1e9, 1e9])
def test_one_wrong_stamp_among_several_moves_it_by_nothing(clock: PartnerClock, times: Times, wrong: float) -> None:
    for stamp in (0.0, 0.0, wrong, 0.0):
        clock.heard(times.wall + stamp)
        assert clock.now() == pytest.approx(times.wall, abs=1e-3)
        times.passes(2)


@pytest.mark.parametrize(("step", "messages"), [(600.0, 2), (-600.0, 4)])
def test_when_the_partners_clock_is_set_it_follows_within_a_few_messages(
    clock: PartnerClock, times: Times, step: float, messages: int
) -> None:
    for _ in range(8):
        clock.heard(times.wall)
        times.passes(2)
    for _ in range(messages):
        clock.heard(times.wall + step)
        times.passes(2)
    assert clock.now() == pytest.approx(times.wall + step, abs=1e-3)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no clock counts the sleep of the machine")
def test_a_machine_that_slept_knows_that_its_plan_grew_old(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = 0.0

    def with_sleep(which: int, read: Callable[[int], float] = time.clock_gettime) -> float:
        return read(which) + (slept if which == time.CLOCK_BOOTTIME else 0.0)

    monkeypatch.setattr("time.clock_gettime", with_sleep)
    clock, held = PartnerClock(), HeldPlan("m", "v", lambda _version, _dim: None, max_age_s=600)  # type: ignore[arg-type, return-value]
    clock.heard(1_700_000_000.0)
    for _ in range(2):
        held.take(PlanSet(1, ()))
    assert held.current() is UnsteeredReason.NO_SAE_FOR_MODEL
    slept = 3600.0
    assert held.current() is UnsteeredReason.PLAN_TOO_OLD
    assert clock.now() == pytest.approx(1_700_003_600.0, abs=60)
