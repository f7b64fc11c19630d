"""Agreement of lists against their definitions in plain Python, and full ranking by a dot product."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.recommenders.metrics import NOWHERE
from recsae.sae.dot_product import DotProductRanker, ExcludedItems
from recsae.sae.rankings import DEPTH, NO_ITEM, RBO_PERSISTENCE, Rankings, agreement

List = list[int]


def _overlap(a: List, b: List) -> float:
    return len(set(a) & set(b)) / max(len(a), len(b), 1)


def _rbo(a: List, b: List) -> float:
    """The sum to infinity, of agreement that stays what it is at the end of the lists; the tail is left out."""
    end, p = max(len(a), len(b), 1), RBO_PERSISTENCE

    def shared(depth: int) -> float:
        depth = min(depth, end)
        return len(set(a[:depth]) & set(b[:depth])) / depth

    return (1 - p) * sum(p ** (depth - 1) * shared(depth) for depth in range(1, 400))


def _kendall(a: List, b: List) -> float:
    def place(ranked: List, item: int) -> int:
        return ranked.index(item) if item in ranked else DEPTH

    pairs = list(combinations(sorted(set(a) | set(b)), 2))
    if not pairs:
        return float(a == b and bool(a))
    total = 0
    for i, j in pairs:
        product = (place(a, i) - place(a, j)) * (place(b, i) - place(b, j))
        total += (product > 0) - (product < 0)
    return total / len(pairs)


def _fagin(a: List, b: List) -> float:
    """K^(p) with p = 1/2, by the four cases of Fagin et al. (2003)."""
    distance = 0.0
    for i, j in combinations(sorted(set(a) | set(b)), 2):
        in_a, in_b = [item for item in (i, j) if item in a], [item for item in (i, j) if item in b]
        if len(in_a) == len(in_b) == 2:
            distance += (a.index(i) < a.index(j)) != (b.index(i) < b.index(j))
        elif {len(in_a), len(in_b)} == {2, 1}:
            both, only = (a, in_b[0]) if len(in_a) == 2 else (b, in_a[0])
            distance += both.index(only) > both.index(i if only == j else j)
        elif len(in_a) == len(in_b) == 1:
            distance += 1  # one item in the one list, the other in the other
        else:
            distance += 0.5  # both items in one list only
    return distance


def _arrays(lists: list[List]) -> NDArray[np.int64]:
    return np.array([[*ranked, *[NO_ITEM] * (DEPTH - len(ranked))] for ranked in lists], np.int64).reshape(-1, DEPTH)


# Few items, so that lists share some; also shorter ones, and empty ones.
lists = st.lists(st.integers(0, 14), unique=True, max_size=DEPTH)
pairs = st.lists(st.tuples(lists, lists), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(pairs=pairs)
def test_agreement_equals_the_definitions(pairs: list[tuple[List, List]]) -> None:
    found = agreement(_arrays([a for a, _ in pairs]), _arrays([b for _, b in pairs]))
    for name, definition in (("overlap@10", _overlap), ("rbo@10", _rbo), ("kendall@10", _kendall)):
        np.testing.assert_allclose(found[name], [definition(a, b) for a, b in pairs], atol=1e-12, err_msg=name)


@given(a=st.permutations(range(14)), b=st.permutations(range(14)))
def test_kendall_is_the_distance_of_top_k_lists_made_a_correlation(a: List, b: List) -> None:
    a, b = a[:DEPTH], b[:DEPTH]
    found = agreement(_arrays([a]), _arrays([b]))["kendall@10"][0]
    assert found == pytest.approx(1 - 2 * _fagin(a, b) / math.comb(len(set(a) | set(b)), 2))


@given(pairs=pairs)
def test_agreement_is_symmetric_and_full_with_oneself(pairs: list[tuple[List, List]]) -> None:
    a, b = _arrays([a for a, _ in pairs]), _arrays([b for _, b in pairs])
    one, other, own = agreement(a, b), agreement(b, a), agreement(a, a)
    filled = (a >= 0).any(axis=1)
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], atol=1e-12)
        np.testing.assert_allclose(own[name][filled], 1)


def test_reversed_and_disjoint_lists_score_as_documented() -> None:
    ten, others = np.arange(10)[None], np.arange(10, 20)[None]
    reversed_ten, disjoint = agreement(ten, ten[:, ::-1]), agreement(ten, others)
    assert (reversed_ten["overlap@10"][0], reversed_ten["kendall@10"][0]) == (1, -1)
    assert (disjoint["overlap@10"][0], disjoint["rbo@10"][0]) == (0, 0)
    assert disjoint["kendall@10"][0] == pytest.approx(-0.53, abs=0.005)
    top_two, last_two = ten.copy(), ten.copy()
    top_two[0, :2], last_two[0, -2:] = [1, 0], [9, 8]
    assert agreement(ten, top_two)["rbo@10"][0] < agreement(ten, last_two)["rbo@10"][0]


def test_places_beyond_ten_do_not_count_and_rows_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.permuted(np.tile(np.arange(30), (50, 1)), axis=1)[:, :21] for _ in range(2))
    whole = agreement(a, b)
    monkeypatch.setattr("recsae.sae.rankings._ROWS_AT_ONCE", 7)
    for name, values in agreement(a[:, :10], b[:, :10]).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-12)


def test_rankings_of_other_rows_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="same rows"):
        Rankings(np.ones(3, np.int64), np.ones((4, 10), np.int64))
    with pytest.raises(InvalidRequestError, match="same rows"):
        agreement(np.ones((3, 10), np.int64), np.ones((4, 10), np.int64))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(0, 12), items=st.integers(2, 30), biased=st.booleans())
def test_the_dot_product_ranker_ranks_all_items(data: st.DataObject, n: int, items: int, biased: bool) -> None:
    """Whole numbers, so that there are ties: ranks are exact, and a list may hold any of the items tied."""
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    x, vectors = (rng.integers(-2, 3, size=(rows, 3)).astype(np.float32) for rows in (n, items))
    biases = rng.integers(-2, 3, size=items).astype(np.float32) if biased else None
    targets = rng.integers(0, items, size=n)
    taken = [np.flatnonzero(rng.random(items) < 0.2) for _ in range(n)]
    excluded = ExcludedItems(
        np.cumsum([0, *(len(some) for some in taken)]), np.concatenate([np.zeros(0, np.int64), *taken])
    )
    found = DotProductRanker(vectors, targets, biases=biases, excluded=excluded)(x)
    for row in range(n):
        scores = {
            item: float(x[row] @ vectors[item]) + (float(biases[item]) if biases is not None else 0.0)
            for item in range(items)
            if item not in taken[row]
        }
        own = scores.get(int(targets[row]))
        assert found.ranks[row] == (NOWHERE if own is None else sum(score >= own for score in scores.values()))
        best = [int(item) for item in found.items[row] if item != NO_ITEM]
        assert len(set(best)) == len(best) == min(DEPTH, len(scores))
        assert [scores[item] for item in best] == sorted(scores.values(), reverse=True)[: len(best)]


def test_chunks_of_the_dot_product_ranker_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    x, vectors = (rng.integers(-9, 10, size=(rows, 4)).astype(np.float32) for rows in (40, 25))
    excluded = ExcludedItems(np.arange(0, 82, 2), rng.integers(0, 25, size=80))
    ranker = DotProductRanker(vectors, rng.integers(0, 25, size=40), excluded=excluded)
    whole = ranker(x)
    monkeypatch.setattr("recsae.sae.dot_product._SCORES_AT_ONCE", 3 * 25)
    parts = ranker(x)
    np.testing.assert_array_equal(parts.ranks, whole.ranks)
    np.testing.assert_array_equal(parts.items, whole.items)


def test_what_the_dot_product_ranker_cannot_rank_is_refused() -> None:
    vectors, targets = np.ones((5, 3), np.float32), np.array([0, 4])
    with pytest.raises(InvalidRequestError, match=r"targets .* 0\.\.4"):
        DotProductRanker(vectors, np.array([5]))
    with pytest.raises(InvalidRequestError, match=r"excluded .* 0\.\.4"):
        DotProductRanker(vectors, targets, excluded=ExcludedItems(np.array([0, 1, 1]), np.array([9])))
    with pytest.raises(InvalidRequestError, match="3 entries and end at 1"):
        DotProductRanker(vectors, targets, excluded=ExcludedItems(np.array([0, 1]), np.array([2])))
    with pytest.raises(InvalidRequestError, match=r"\[2, 3\], one row per target"):
        DotProductRanker(vectors, targets)(np.ones((3, 3), np.float32))
