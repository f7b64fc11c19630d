"""Rows of one subject pooled: the largest strength counts, wherever it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsae.concepts.row_pooling import pool_rows, pooled_firings, unexplained_share
from recsae.sae.codes import Codes

CODES = Codes(
    np.array([[4, 2, 7], [2, 9, 4], [1, 2, 3]], np.int32),
    np.array([[3.0, 1.0, 0.0], [5.0, 2.0, 1.0], [9.0, 9.0, 9.0]], np.float32),
)
STRENGTHS = np.asarray(CODES.values * 0.5, np.float32)


def test_a_latent_is_as_strong_as_where_it_fires_most_of_the_rows_used() -> None:
    found = pooled_firings(CODES, STRENGTHS, np.array([True, True, False]))
    assert [(one.latent, one.value, one.strength) for one in found] == [(2, 5.0, 2.5), (4, 3.0, 1.5), (9, 2.0, 1.0)]
    assert [dict(one.at) for one in found] == [{0: 1.0, 1: 5.0}, {0: 3.0, 1: 1.0}, {1: 2.0}]
    assert pooled_firings(CODES, STRENGTHS, np.zeros(3, bool)) == ()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_pooling_many_subjects_is_their_dense_maximum(subjects: int, rows: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, n = 8, subjects * rows
    latents = np.stack([rng.permutation(width)[:k] for _ in range(n)])
    strengths = np.maximum(rng.normal(size=(n, k)), 0).astype(np.float32)
    subject = rng.permutation(np.repeat(np.arange(subjects) * 3 + 1, rows))
    found = pool_rows(latents, strengths, subject)
    assert found.subject.tolist() == sorted(set(subject.tolist()))
    wanted = np.zeros((subjects, width), np.float32)
    for row in range(n):
        place = found.subject.tolist().index(subject[row])
        np.maximum.at(wanted[place], latents[row], strengths[row])
    dense = np.zeros_like(wanted)
    for place in range(subjects):
        fires = found.strengths[place] > 0
        named = found.latents[place][fires]
        assert len(set(named.tolist())) == len(named)
        dense[place, named] = found.strengths[place][fires]
    np.testing.assert_array_equal(dense, wanted)


def test_the_unexplained_share_is_a_ratio_of_sums_and_no_mean_of_ratios() -> None:
    x = np.array([[10.0, 0.0], [1.0, 0.0]], np.float32)
    x_hat = np.array([[10.0, 1.0], [0.0, 0.0]], np.float32)
    assert unexplained_share(x, x_hat, np.zeros(2, np.float32)) == pytest.approx(2 / 101)
    assert unexplained_share(x, x, x[0]) == 0
    assert unexplained_share(x[:1], x_hat[:1], x[0]) == float("inf")
