"""Ranking figures against slow and obvious implementations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsae.datasets.schema import Histories
from recsae.recommenders.metrics import (
    NOWHERE,
    hit_ratio,
    ndcg,
    popularity_ranks,
    ranking_quality,
    ranks_from_scores,
    ranks_in_lists,
)


def histories(*users: list[int]) -> Histories:
    offsets = np.concatenate([[0], np.cumsum([len(user) for user in users])]).astype(np.int64)
    items = np.array([item for user in users for item in user], dtype=np.int32)
    return Histories(offsets, items, np.arange(len(items), dtype=np.float64))


def test_rank_counts_items_scoring_at_least_as_much() -> None:
    scores = np.array([[-np.inf, 0.5, 0.9, 0.5, 0.1]], dtype=np.float32)
    assert [int(ranks_from_scores(scores, np.array([target]))[0]) for target in (1, 2, 3, 4)] == [3, 1, 3, 4]


def test_model_that_scores_everything_alike_hits_nothing() -> None:
    scores = np.zeros((6, 31), dtype=np.float32)
    scores[:, 0] = -np.inf
    ranks = ranks_from_scores(scores, np.arange(1, 7))
    assert hit_ratio(ranks, 20) == 0.0


def test_masked_target_ranks_nowhere() -> None:
    scores = np.array([[-np.inf, -np.inf, 1.0]], dtype=np.float32)
    assert ranks_from_scores(scores, np.array([1]))[0] == NOWHERE


@given(seed=st.integers(0, 1000), depth=st.integers(2, 12))
def test_ranks_in_lists_equal_full_ranks_below_their_depth(seed: int, depth: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, size=(5, 13)).astype(np.float32)  # few values, so that ties are common
    scores[:, 0] = -np.inf
    targets = random.integers(1, 13, size=5)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    listed = ranks_in_lists(order.astype(np.int64), np.take_along_axis(scores, order, axis=1), targets)
    full = ranks_from_scores(scores, targets)
    for k in range(1, depth):
        assert hit_ratio(listed, k) == hit_ratio(full, k)
        assert ndcg(listed, k) == ndcg(full, k)


def test_ndcg_is_the_discount_of_the_rank() -> None:
    assert ndcg(np.array([1, 3, 11]), 10) == pytest.approx((1.0 + 0.5 + 0.0) / 3)


def test_quality_of_no_user_is_zero() -> None:
    assert set(ranking_quality(np.array([], dtype=np.int64), (5, 10)).values()) == {0.0}


@given(seed=st.integers(0, 500))
def test_popularity_ranks_equal_a_full_sort(seed: int) -> None:
    random = np.random.default_rng(seed)
    users = [random.integers(1, 16, size=random.integers(1, 12)).tolist() for _ in range(6)]
    train = histories(*users)
    targets = random.integers(0, 16, size=6)
    found = popularity_ranks(train, train, targets, n_items=15)
    counts = np.bincount(train.items, minlength=16).astype(np.float32)
    for user, target in enumerate(targets):
        scores = counts.copy()
        scores[[0, *users[user]]] = -np.inf
        expected = ranks_from_scores(scores[None], np.array([target]))[0] if target else NOWHERE
        assert found[user] == expected
