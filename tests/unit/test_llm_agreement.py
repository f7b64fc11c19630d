"""Agreement of ratings and strengths: right values, intervals that hold, and RecSAE's ten cases beside a coin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsae.concepts.llm.agreement import agreement, mean_over
from recsae.concepts.llm.cases import Case, CaseKind
from recsae.concepts.llm.ten_cases import COIN_FLIP_PASSES, ten_case_confidence, ten_cases
from recsae.concepts.llm.verifying import Rating


def test_scores_are_those_of_their_definitions() -> None:
    rng = np.random.default_rng(0)
    strength = np.where(rng.random(60) < 0.5, rng.uniform(0.5, 2, 60), 0)
    rated = np.clip(np.round(3 + 2 * strength + rng.normal(0, 2, 60)), 0, 10)
    found = agreement(rated.tolist(), strength.tolist(), list(range(60)))
    yes, true = rated >= 5, strength >= 0.5
    precision, recall = (yes & true).sum() / yes.sum(), (yes & true).sum() / true.sum()
    assert found.correlation.value == pytest.approx(np.corrcoef(rated, strength)[0, 1])
    assert found.precision.value == pytest.approx(precision)
    assert found.recall.value == pytest.approx(recall)
    assert found.f1.value == pytest.approx(2 * precision * recall / (precision + recall))
    for one in (found.correlation, found.precision, found.recall, found.f1):
        assert one.low < one.value < one.high


def test_a_perfect_score_of_few_cases_keeps_a_wide_interval() -> None:
    found = agreement([10.0] * 5 + [0.0] * 5, [1.0] * 5 + [0.0] * 5, list(range(10)))
    assert found.f1.value == 1
    assert found.correlation.value == pytest.approx(1)
    assert found.precision.low == pytest.approx(0.566, abs=0.001)  # Wilson's for 5 of 5


def test_ratings_that_say_nothing_have_no_correlation() -> None:
    found = agreement([7.0] * 20, [1.0] * 10 + [0.0] * 10, list(range(20)))
    assert found.correlation.value == 0
    assert found.correlation.low < 0 < found.correlation.high
    assert (found.precision.value, found.recall.value) == (0.5, 1)
    assert found.f1.value == pytest.approx(2 / 3)


def test_cases_of_one_user_count_as_one() -> None:
    """Forty ratings of four users say less than forty of forty."""
    rng = np.random.default_rng(1)
    luck = np.repeat(rng.random(4) < 0.5, 10)
    rated = np.where(luck, 9.0, 1.0).tolist()
    strength = ([1.0] * 5 + [0.0] * 5) * 4
    few = agreement(rated, strength, np.repeat(np.arange(4), 10).tolist()).recall
    many = agreement(rated, strength, list(range(40))).recall
    assert few.value == many.value
    assert few.high - few.low > 1.5 * (many.high - many.low)


def test_intervals_hold_the_truth_about_as_often_as_they_promise() -> None:
    """Recall of a rater who is right in 70 %: over 200 draws an interval of 95 % misses at most 10 % (P < .002)."""
    rng = np.random.default_rng(2)
    missed = 0
    for _ in range(200):
        rated = np.where(rng.random(40) < 0.7, 9.0, 1.0)
        recall = agreement(rated.tolist(), [1.0] * 40, list(range(40))).recall
        missed += not recall.low <= 0.7 <= recall.high
    assert missed <= 20


def test_nothing_rated_has_no_scores() -> None:
    assert agreement([], [], []).f1.high == 0
    assert mean_over([]).high == 0


def test_a_mean_over_concepts_has_an_interval_over_concepts() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 100)
    found = mean_over(values.tolist())
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.25)


def ten(positive: int = 5, random: int = 5) -> list[Case]:
    case = Case(("x",), 1.0, 0, 0, CaseKind.POSITIVE)
    silent = replace(case, strength=0.0, kind=CaseKind.RANDOM)
    return [case] * positive + [replace(silent, kind=CaseKind.HARD)] + [silent] * random


def test_ten_cases_are_five_positives_and_five_random_ones() -> None:
    assert ten_cases(ten(9, 9)) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]


def test_an_unreadable_rating_is_wrong_and_the_threshold_is_five() -> None:
    cases = [ten()[at] for at in ten_cases(ten())]
    ratings = [Rating(5.0)] * 4 + [Rating(None)] + [Rating(4.9)] * 4 + [Rating(5.0)]
    assert ten_case_confidence(cases, ratings) == 0.8


def test_fewer_than_ten_cases_or_an_ended_budget_have_no_confidence() -> None:
    cases = [ten()[at] for at in ten_cases(ten())]
    assert ten_case_confidence(cases[:9], [Rating(5.0)] * 9) is None
    assert ten_case_confidence(cases, [Rating(5.0)] * 9 + [Rating(None, asked=False)]) is None
    assert ten_case_confidence(cases, []) is None


def test_a_coin_passes_ten_cases_in_one_try_of_eighteen() -> None:
    flips = np.random.default_rng(0).integers(0, 2, (200_000, 10))
    assert pytest.approx(56 / 1024) == COIN_FLIP_PASSES
    assert (flips.sum(axis=1) >= 8).mean() == pytest.approx(COIN_FLIP_PASSES, abs=0.002)
