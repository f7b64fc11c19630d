"""Correlations, AUC and F1 equal their definitions, and their intervals know that rows of one user belong together."""

from __future__ import annotations

import numpy as np
import pytest

from recsae.concepts.cases import group_users, resampling_weights
from recsae.concepts.cluster_intervals import aucs, correlations, estimate, f1s


def test_the_point_estimates_equal_the_definitions_with_ties_counting_half() -> None:
    rng = np.random.default_rng(0)
    predicted = np.maximum(rng.normal(size=(500, 2)), 0)
    targets = predicted + rng.normal(size=(500, 2))
    positive = targets > 0.5
    group = rng.integers(0, 40, 500)
    weights = resampling_weights(40, resamples=10)
    r, auc = correlations(predicted, targets, group, weights), aucs(predicted, positive, group, weights)
    called = predicted > 0.7
    f1 = f1s(called, positive, group, weights)
    for column in range(2):
        assert r[column, 0] == pytest.approx(np.corrcoef(predicted[:, column], targets[:, column])[0, 1])
        won = predicted[positive[:, column], column][:, None] - predicted[~positive[:, column], column][None, :]
        assert auc[column, 0] == pytest.approx((won > 0).mean() + (won == 0).mean() / 2)
        both = (called & positive)[:, column].sum()
        assert f1[column, 0] == pytest.approx(2 * both / (called[:, column].sum() + positive[:, column].sum()))


def test_a_resample_equals_the_figure_of_the_rows_drawn() -> None:
    rng = np.random.default_rng(1)
    predicted, targets = rng.normal(size=(200, 1)), rng.normal(size=(200, 1))
    group = np.repeat(np.arange(20), 10)
    weights = resampling_weights(20, resamples=3, seed=4)
    times = np.repeat(np.arange(200), weights[group, 2].astype(int))
    drawn = np.corrcoef(predicted[times, 0], targets[times, 0])[0, 1]
    assert correlations(predicted, targets, group, weights)[0, 2] == pytest.approx(drawn)
    hits, misses = (predicted[times][(targets[times] > 0) == sign] for sign in (True, False))
    expected = (hits[:, None] > misses[None, :]).mean() + (hits[:, None] == misses[None, :]).mean() / 2
    assert aucs(predicted, targets > 0, group, weights)[0, 2] == pytest.approx(expected)


def test_repeated_rows_of_the_same_users_do_not_narrow_an_interval() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(60, 1)), rng.normal(size=(60, 1))
    users = np.arange(60, dtype=np.int32)
    widths = []
    for copies in (1, 20):
        group = group_users(np.repeat(users, copies))
        found = correlations(
            np.repeat(x, copies, axis=0), np.repeat(y, copies, axis=0), group, resampling_weights(60, resamples=400)
        )
        interval = estimate(found[0])
        widths.append(interval.high - interval.low)
    assert widths[1] == pytest.approx(widths[0])


def test_what_does_not_vary_correlates_with_nothing_and_an_empty_class_is_chance() -> None:
    group, weights = np.arange(5), resampling_weights(5, resamples=2)
    assert correlations(np.ones((5, 1)), np.arange(5.0)[:, None], group, weights)[0, 0] == 0
    assert aucs(np.arange(5.0)[:, None], np.zeros((5, 1), bool), group, weights)[0, 0] == 0.5
    assert f1s(np.zeros((5, 1), bool), np.zeros((5, 1), bool), group, weights)[0, 0] == 0
