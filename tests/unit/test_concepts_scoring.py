"""Scores equal their definitions computed by loops, and their intervals cover the truth as often as they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.cases import Cases, group_users, resampling_weights
from recsae.concepts.controls import always_true_f1, cross_f1
from recsae.concepts.rules import Predictor
from recsae.concepts.scoring import natural_f1, score_labels

Mask = NDArray[np.bool_]


def csr(mask: Mask) -> sparse.csr_matrix:
    return sparse.csr_matrix(mask.astype(np.float32))


def predictor(called: Mask) -> Predictor:
    matrix = csr(called)
    return lambda latents: matrix[latents]


def make_cases(seed: int = 0, width: int = 6, users: int = 40, per_user: int = 25) -> tuple[Cases, Mask, Mask, Mask]:
    """Cases with called, strong and weak masks [w, n]; calls agree with firing more often than not."""
    rng = np.random.default_rng(seed)
    n = users * per_user
    strong = rng.random((width, n)) < 0.2
    weak = (rng.random((width, n)) < 0.1) & ~strong
    called = rng.random((width, n)) < np.where(strong, 0.7, 0.15)
    user = np.repeat(np.arange(users), per_user)
    cases = Cases(
        strong=csr(strong),
        weak=csr(weak),
        user=user,
        group=group_users(user.astype(np.int32)),
        unseen=rng.random(n) < 0.3,
        stratum=rng.integers(0, 5, n).astype(np.int32),
        n_strata=5,
        groups=users,
        neighbours=np.array([[(j + 1) % width, (j + 2) % width, -1] for j in range(width)], np.int32),
    )
    return cases, called, strong, weak


def balanced(recall: float, false_rate: float) -> float:
    return 2 * recall / (1 + recall + false_rate)


def test_point_scores_equal_their_definitions() -> None:
    cases, called, strong, weak = make_cases()
    scores = score_labels(cases, predictor(called), resampling_weights(cases.groups, resamples=3))
    for j in range(cases.width):
        hit, silent = called[j] & strong[j], ~strong[j] & ~weak[j]
        false = called[j] & silent
        recall = hit.sum() / strong[j].sum()
        assert scores.precision.value[j] == pytest.approx(hit.sum() / (hit.sum() + false.sum()))
        assert scores.recall.value[j] == pytest.approx(recall)
        assert scores.f1.value[j] == pytest.approx(2 * hit.sum() / (strong[j].sum() + hit.sum() + false.sum()))
        assert scores.balanced_f1.value[j] == pytest.approx(balanced(recall, false.sum() / silent.sum()))
        fresh = cases.unseen
        fresh_recall = (hit & fresh).sum() / (strong[j] & fresh).sum()
        fresh_false = (false & fresh).sum() / (silent & fresh).sum()
        assert scores.unseen_f1.value[j] == pytest.approx(balanced(fresh_recall, fresh_false))
        assert scores.weak_predicted[j] == (called[j] & weak[j]).sum()
        near = strong[cases.neighbours[j][cases.neighbours[j] >= 0]].any(axis=0) & silent
        assert scores.hard_negatives[j] == near.sum()
        assert scores.hard_f1.value[j] == pytest.approx(balanced(recall, (called[j] & near).sum() / near.sum()))


def test_matched_negatives_are_distributed_as_the_positives() -> None:
    cases, called, strong, weak = make_cases()
    scores = score_labels(cases, predictor(called), resampling_weights(cases.groups, resamples=3))
    for j in range(cases.width):
        silent = ~strong[j] & ~weak[j]
        rate = 0.0
        for cell in range(5):
            inside = cases.stratum == cell
            share = (strong[j] & inside).sum() / strong[j].sum()
            rate += share * (called[j] & silent & inside).sum() / (silent & inside).sum()
        recall = (called[j] & strong[j]).sum() / strong[j].sum()
        assert scores.matched_f1.value[j] == pytest.approx(balanced(recall, rate), abs=1e-5)


def test_a_label_that_tells_popularity_alone_fails_against_matched_negatives() -> None:
    rng = np.random.default_rng(1)
    cases, *_ = make_cases(users=200)
    popular = cases.stratum >= 3
    strong = popular & (rng.random(cases.rows) < 0.5)
    cases = replace(
        cases,
        strong=csr(strong[None]),
        weak=csr(np.zeros((1, cases.rows), bool)),
        neighbours=np.full((1, 3), -1, np.int32),
    )
    scores = score_labels(cases, predictor(popular[None]), resampling_weights(cases.groups, resamples=50))
    assert scores.balanced_f1.value[0] > 0.85
    assert scores.matched_f1.value[0] == pytest.approx(2 / 3, abs=0.01), "no better than the label that always holds"


def test_scores_of_some_latents_equal_those_of_all() -> None:
    cases, called, *_ = make_cases()
    weights = resampling_weights(cases.groups, resamples=20)
    whole, part = (
        score_labels(cases, predictor(called), weights),
        score_labels(cases, predictor(called), weights, np.array([1, 4])),
    )
    assert part.f1.value.tolist() == [0, whole.f1.value[1], 0, 0, whole.f1.value[4], 0]
    np.testing.assert_array_equal(natural_f1(cases, predictor(called), weights).low, whole.f1.low)


def test_intervals_resample_users_not_rows() -> None:
    """Ten users who always fire and always agree, ten who fire and never do: rows would suggest a narrow interval."""
    user = np.repeat(np.arange(20), 50)
    strong = np.ones((1, 1000), bool)
    called = (user < 10)[None]
    template, *_ = make_cases(users=40)
    cases = replace(
        template,
        strong=csr(strong),
        weak=csr(~strong),
        user=user,
        group=user,
        groups=20,
        neighbours=np.full((1, 3), -1, np.int32),
    )
    recall = score_labels(cases, predictor(called), resampling_weights(20, resamples=2000)).recall
    half_width = (recall.high[0] - recall.low[0]) / 2
    assert half_width == pytest.approx(1.96 * 0.5 / np.sqrt(20), rel=0.1)


def test_a_perfect_score_on_few_cases_keeps_an_honest_interval() -> None:
    """Twelve of twelve: Wilson's lower bound is .757, a bootstrap alone would say 1."""
    strong = np.zeros((1, 1000), bool)
    strong[0, ::85] = True
    template, *_ = make_cases()
    cases = replace(
        template, strong=csr(strong), weak=csr(np.zeros_like(strong)), neighbours=np.full((1, 1), -1, np.int32)
    )
    assert cases.positives.tolist() == [12]
    scores = score_labels(cases, predictor(strong), resampling_weights(cases.groups))
    for score in (scores.f1, scores.precision, scores.recall, scores.balanced_f1):
        assert (score.value[0], score.high[0]) == (1, 1)
        assert score.low[0] == pytest.approx(0.757, abs=1e-3)


def test_a_95_percent_interval_covers_the_truth() -> None:
    """Users differ in how well the label fits (a true clustering). Of 400 intervals of F1 with 60 users each, at least
    89 % must cover the truth: a nominal 95 % method goes below that with probability < 1e-5, one that resamples rows
    covers about 60 %.
    """
    rng = np.random.default_rng(2)
    width, users, per_user = 400, 60, 20
    n = users * per_user
    user = np.repeat(np.arange(users), per_user)
    fit = rng.beta(1, 1, (width, users))[:, user]
    strong = rng.random((width, n)) < 0.3
    called = np.where(strong, rng.random((width, n)) < fit, rng.random((width, n)) < 0.1)
    truth = 2 * 0.3 * 0.5 / (0.3 + 0.3 * 0.5 + 0.7 * 0.1)
    template, *_ = make_cases(users=60, per_user=20)
    cases = replace(
        template,
        strong=csr(strong),
        weak=csr(np.zeros((width, n), bool)),
        user=user,
        group=user,
        groups=users,
        neighbours=np.full((width, 1), -1, np.int32),
    )
    f1 = natural_f1(cases, predictor(called), resampling_weights(users))
    covered = ((f1.low <= truth) & (truth <= f1.high)).mean()
    assert 0.89 <= covered <= 0.99


def test_many_users_share_groups_and_no_user_is_split() -> None:
    user = np.repeat(np.arange(3000), 2).astype(np.int32)
    group = group_users(user)
    assert group.max() == 999
    assert (group[::2] == group[1::2]).all()


def test_cross_table_equals_scores_of_each_pair() -> None:
    cases, called, *_ = make_cases()
    natural, equal = cross_f1(cases, predictor(called), np.arange(cases.width))
    weights = resampling_weights(cases.groups, resamples=3)
    for label in range(cases.width):
        scores = score_labels(cases, predictor(np.repeat(called[[label]], cases.width, axis=0)), weights)
        np.testing.assert_allclose(natural[label], scores.f1.value, atol=1e-6)
        np.testing.assert_allclose(equal[label], scores.balanced_f1.value, atol=1e-6)


def test_always_true_is_the_score_of_a_label_that_always_holds() -> None:
    cases, called, *_ = make_cases()
    scores = score_labels(cases, predictor(np.ones_like(called)), resampling_weights(cases.groups, resamples=3))
    np.testing.assert_allclose(always_true_f1(cases.positives, cases.negatives), scores.f1.value, atol=1e-6)
    np.testing.assert_allclose(scores.balanced_f1.value, 2 / 3, atol=1e-6)
