"""Item sets: the best set of at most six seen items, exactly for one newest item."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.features import RowFeatures, Windows
from recsae.concepts.item_sets import fit_item_sets
from recsae.concepts.rules import MAX_SET_ITEMS, compile_item_sets
from recsae.datasets.facets import FacetTable

_ITEMS = 9
_IDS = [f"i{item}" for item in range(1, _ITEMS + 1)]


def features_of(newest: NDArray[np.int32]) -> RowFeatures:
    n = len(newest)
    items = np.ascontiguousarray(newest[:, ::-1]).ravel()
    ends = np.arange(1, n + 1) * newest.shape[1]
    known = (newest > 0).sum(axis=1)
    facets = FacetTable((), (), sparse.csr_matrix((_ITEMS + 1, 0), dtype=np.float32))
    return RowFeatures(Windows(items, ends - known, ends), facets, np.zeros(_ITEMS + 1, np.float32))


def make_case(seed: int) -> tuple[RowFeatures, NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    newest = np.zeros((1500, 3), np.int32)
    newest[:, 0] = rng.integers(1, _ITEMS + 1, 1500)
    rates = rng.random(_ITEMS + 1) ** 3
    return features_of(newest), rng.random(1500) < rates[newest[:, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_the_best_set_of_one_newest_item_is_found(seed: int) -> None:
    features, strong = make_case(seed)
    weak = (np.random.default_rng(seed + 9).random(1500) < 0.1) & ~strong
    usable = np.array([False] + [True] * _ITEMS)
    strong_rows, weak_rows = (sparse.csr_matrix(mask[None].astype(np.float32)) for mask in (strong, weak))
    fitted = fit_item_sets(features, strong_rows, weak_rows, usable)
    best = 0.0
    for size in range(1, MAX_SET_ITEMS + 1):
        for items in combinations(range(1, _ITEMS + 1), size):
            called = np.isin(features.newest[:, 0], items) & ~weak
            best = max(best, 2 * (called & strong).sum() / (strong.sum() + called.sum()))
    assert fitted.f1[0] == pytest.approx(best, abs=1e-6)
    assert fitted.sets.window[0] == 1


def test_an_item_two_places_back_needs_a_window_of_three() -> None:
    rng = np.random.default_rng(0)
    newest = rng.integers(1, _ITEMS + 1, (3000, 3)).astype(np.int32)
    strong = sparse.csr_matrix((newest == 4).any(axis=1)[None].astype(np.float32))
    fitted = fit_item_sets(features_of(newest), strong, sparse.csr_matrix(strong.shape), np.ones(_ITEMS + 1, bool))
    assert (fitted.sets.window[0], fitted.sets.items[0].tolist()) == (3, [4, 0, 0, 0, 0, 0])
    predicted = fitted.sets.predictor(features_of(newest), _ITEMS)(np.array([0]))
    assert (predicted != strong).nnz == 0


def test_unseen_items_are_never_named() -> None:
    newest = np.tile(np.array([[4, 0, 0]], np.int32), (100, 1))
    strong = sparse.csr_matrix(np.ones((1, 100), np.float32))
    usable = np.arange(_ITEMS + 1) != 4
    fitted = fit_item_sets(features_of(newest), strong, sparse.csr_matrix((1, 100)), usable)
    assert fitted.f1[0] == 0
    assert not fitted.sets.items.any()


def test_sets_survive_their_stored_form() -> None:
    features, strong = make_case(1)
    matrix = sparse.csr_matrix(strong[None].astype(np.float32))
    fitted = fit_item_sets(features, matrix, sparse.csr_matrix(matrix.shape), np.ones(_ITEMS + 1, bool))
    again = compile_item_sets(fitted.sets.records(_IDS), _IDS)
    np.testing.assert_array_equal(again.items, fitted.sets.items)
    np.testing.assert_array_equal(again.window, fitted.sets.window)
