"""The interpreter's clock as a replica estimates it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from recsae.steering.clock import PartnerClock


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
