"""The pure parts of the serving and propagation benchmarks: intervals, histograms, arrivals, what is compared."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from benchmarks.propagation.traffic import Seen
from benchmarks.propagation.writes import first_obeying
from benchmarks.serving.arrivals import poisson_arrivals
from benchmarks.serving.latencies import LatencyHistogram
from benchmarks.serving.pairs import median_interval, palindrome, ratio_interval
from benchmarks.serving.plans import MANY, MATCHING, many_policies, weights
from benchmarks.serving.world import USERS

from recsae.steering.matching import Matcher, SteerContext


def test_two_variants_are_run_as_abba() -> None:
    assert palindrome(["a", "b"]) == ["a", "b", "b", "a"]


def test_a_linear_drift_does_not_move_the_ratio_of_a_round() -> None:
    costs = {"a": 100.0, "b": 110.0}
    spent = {"a": 0.0, "b": 0.0}
    for place, name in enumerate(palindrome(["a", "b"])):
        spent[name] += costs[name] + 7.0 * place
    assert spent["b"] - spent["a"] == pytest.approx(2 * (110 - 100))


def test_the_interval_of_twenty_values_lies_between_the_sixth_and_the_fifteenth() -> None:
    found = median_interval([float(value) for value in range(1, 21)])
    assert (found.median, found.low, found.high) == (10.5, 6.0, 15.0)


@pytest.mark.parametrize("n", [6, 9, 20, 40])
def test_the_interval_covers_the_median_at_least_as_often_as_it_says(n: int) -> None:
    random = np.random.default_rng(n)
    covered = 0
    for _ in range(2_000):
        found = median_interval(random.lognormal(0.0, 1.0, n).tolist())
        covered += found.low <= 1.0 <= found.high
    assert covered / 2_000 > 0.945


def test_few_values_give_their_whole_range() -> None:
    found = median_interval([3.0, 1.0, 2.0])
    assert (found.median, found.low, found.high) == (2.0, 1.0, 3.0)


def test_ratios_are_taken_round_by_round() -> None:
    # What slows a whole round down cancels.
    assert ratio_interval([1.1, 2.2, 11.0], [1.0, 2.0, 10.0]).median == pytest.approx(1.1)


def test_quantiles_of_the_histogram_are_right_to_one_percent() -> None:
    histogram = LatencyHistogram()
    seconds = np.random.default_rng(0).lognormal(-6, 1, 20_000)
    for one in seconds.tolist():
        histogram.record(one)
    for share in (0.5, 0.9, 0.99, 0.999):
        true = float(np.quantile(seconds, share, method="inverted_cdf"))
        assert histogram.quantile(share) == pytest.approx(true, rel=0.0101)
    assert len(histogram) == 20_000


def test_the_histogram_counts_what_lies_outside_at_its_ends() -> None:
    histogram = LatencyHistogram()
    assert math.isnan(histogram.quantile(0.5))
    for seconds in (0.0, -1.0, 1e6):
        histogram.record(seconds)
    assert histogram.quantile(0.5) == pytest.approx(1e-6, rel=0.02)
    assert histogram.quantile(1.0) == pytest.approx(1_000.0, rel=0.03)


def test_arrivals_come_at_the_rate_asked_for_and_independently() -> None:
    due = poisson_arrivals(2_000.0, 10.0, seed=0)
    gaps = np.diff(due)
    assert (gaps > 0).all()
    assert due[0] > 0
    assert due[-1] < 10.0
    assert len(due) == pytest.approx(20_000, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # an exponential distribution's sign
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.03


def test_of_a_thousand_policies_five_hold_for_every_user() -> None:
    policies = many_policies(weights(2_048))
    matcher, now = Matcher(policies), time.time()
    assert len(policies) == MANY
    for user in range(USERS):
        found = matcher.find(SteerContext(f"u-{user}", "r", {"country": ("SE", "DK")[user % 2]}), now).live
        assert len({operation.latent for policy in found for operation in policy.operations}) == MATCHING == len(found)


def test_a_delay_ends_with_the_first_answer_that_obeys() -> None:
    def seen(asked: float, revision: int) -> Seen:
        return Seen(asked, asked + 0.01, revision, frozenset())

    answers = [seen(9.95, 1), seen(10.05, 1), seen(10.15, 2), seen(10.25, 2)]
    first, lower = first_obeying(answers, 10.0, lambda one: one.plan_revision >= 2)
    assert first == pytest.approx(0.16)  # had, not asked for: the caller's wait
    assert lower == pytest.approx(0.05)


def test_a_plan_that_was_live_before_its_write_was_acknowledged_has_no_delay() -> None:
    answers = [Seen(9.98, 9.99, 2, frozenset()), Seen(10.08, 10.09, 2, frozenset())]
    assert first_obeying(answers, 10.0, lambda one: one.plan_revision >= 2) == (0.0, 0.0)
