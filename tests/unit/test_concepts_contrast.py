"""Concepts that tell two groups apart: agreement with scipy, users counted once, no finding without a difference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.special import erfc

from recsae.concepts.contrast import Group, contrast
from recsae.errors import InvalidRequestError
from recsae.significance import benjamini_hochberg, two_sided_p

WIDTH = 40


def group(dense: NDArray[np.float32], user: NDArray[np.int64] | None = None) -> Group:
    """A group from strengths [n, w]."""
    latents = np.tile(np.arange(dense.shape[1]), (len(dense), 1))
    return Group(latents, dense.astype(np.float32), np.arange(len(dense)) if user is None else user)


def drawn(seed: int, users: int, rates: NDArray[np.float64]) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    fires = rng.random((users, len(rates))) < rates
    return (fires * rng.gamma(2.0, 0.5, fires.shape)).astype(np.float32)


def test_ranks_and_p_agree_with_scipy_ties_included() -> None:
    rates = np.linspace(0.05, 0.9, WIDTH)
    a, b = np.round(drawn(1, 130, rates), 1), np.round(drawn(2, 170, rates[::-1]), 1)
    found = contrast(group(a), group(b), WIDTH)
    for latent in range(WIDTH):
        expected = stats.mannwhitneyu(
            a[:, latent], b[:, latent], alternative="two-sided", method="asymptotic", use_continuity=False
        )
        assert found.auc[latent] == pytest.approx(expected.statistic / (130 * 170))
    p = np.array([
        stats.mannwhitneyu(a[:, j], b[:, j], method="asymptotic", use_continuity=False).pvalue for j in range(WIDTH)
    ])  # fmt: skip
    np.testing.assert_allclose(found.q, stats.false_discovery_control(p), rtol=1e-5, atol=1e-30)


def test_rates_differences_and_odds_are_those_of_the_two_by_two_table() -> None:
    a, b = np.zeros((100, 2), np.float32), np.zeros((50, 2), np.float32)
    a[:60, 0] = 2.0
    b[:10, 0] = 1.0
    found = contrast(group(a), group(b), 2)
    assert (found.rate_a[0], found.rate_b[0], found.rate_difference.value[0]) == pytest.approx((0.6, 0.2, 0.4))
    # Newcombe's method by hand: Wilson intervals [.502, .691] and [.112, .330].
    assert found.rate_difference.low[0] == pytest.approx(0.4 - np.hypot(0.6 - 0.50200, 0.33036 - 0.2), abs=2e-4)
    assert found.log_odds.value[0] == pytest.approx(np.log(60.5 * 40.5 / (40.5 * 10.5)))
    assert found.strength_difference.value[0] == pytest.approx(1.2 - 0.2)
    expected = stats.ttest_ind(a[:, 0], b[:, 0], equal_var=False).confidence_interval(0.95)
    assert found.strength_difference.low[0] == pytest.approx(expected.low, abs=0.01)
    assert found.auc[1] == 0.5
    assert np.isnan(found.q[1])


def test_a_user_with_many_rows_counts_once() -> None:
    rates = np.full(WIDTH, 0.4)
    a, b = drawn(3, 60, rates), drawn(4, 60, rates)
    once = contrast(group(a), group(b), WIDTH)
    users = np.repeat(np.arange(60), 7)
    often = contrast(group(np.repeat(a, 7, axis=0), users), group(b), WIDTH)
    assert often.users_a == 60
    np.testing.assert_allclose(often.q, once.q)
    np.testing.assert_allclose(often.rate_difference.low, once.rate_difference.low)


def test_planted_differences_come_first_and_nothing_else_is_found() -> None:
    rates = np.full(WIDTH, 0.2)
    shifted = rates.copy()
    shifted[[3, 17]] = 0.7, 0.02
    found = contrast(group(drawn(5, 400, shifted)), group(drawn(6, 400, rates)), WIDTH)
    assert set(found.tested[:2].tolist()) == {3, 17}
    assert found.rate_difference.value[3] > 0 > found.rate_difference.value[17]
    assert set(np.flatnonzero(found.q < 0.001).tolist()) == {3, 17}


def test_equal_groups_are_rarely_told_apart() -> None:
    """With BH at .05 and no difference anywhere, a finding in a comparison has probability .05: 200 comparisons."""
    rates = np.full(WIDTH, 0.3)
    wrong = 0
    inside = []
    for seed in range(200):
        found = contrast(group(drawn(2 * seed, 80, rates)), group(drawn(2 * seed + 1, 60, rates)), WIDTH)
        wrong += bool((found.q < 0.05).any())
        for interval in (found.rate_difference, found.log_odds, found.strength_difference):
            inside.append(((interval.low <= 0) & (interval.high >= 0)).mean())
    assert wrong <= 20
    assert 0.93 <= np.mean(inside) <= 0.97


def test_too_few_users_are_refused() -> None:
    one = group(np.ones((1, 3), np.float32))
    with pytest.raises(InvalidRequestError, match="1 and 2 users"):
        contrast(one, group(np.ones((2, 3), np.float32)), 3)


@settings(max_examples=50)
@given(st.floats(-35, 35))
def test_normal_tails_are_right_far_out(z: float) -> None:
    assert two_sided_p(np.array([z]))[0] == pytest.approx(erfc(abs(z) / np.sqrt(2)), rel=2e-7)


def test_adjusted_p_leaves_untested_out() -> None:
    q = benjamini_hochberg(np.array([0.01, np.nan, 0.04, 0.03]))
    np.testing.assert_allclose(q[[0, 2, 3]], [0.03, 0.04, 0.04])
    assert np.isnan(q[1])
