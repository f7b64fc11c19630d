"""Layers beside each other, on planted activations: what both have is found, what one has alone is told apart."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.concepts.layers import LayerComparison, compare_layers, layer_of
from recsae.errors import InvalidRequestError
from recsae.sae.codes import Codes

ROWS, WIDTH, SHARED = 2_000, 16, 6


def codes_of(values: NDArray[np.float32]) -> Codes:
    """Dense values [n, w] as codes."""
    order = np.argsort(-values, axis=1, kind="stable").astype(np.int32)
    return Codes(order, np.take_along_axis(values, order.astype(np.int64), axis=1))


def planted(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Values [n, w] of two layers. The first SHARED latents of one are the last of the other, in reverse and scaled."""
    rng = np.random.default_rng(seed)

    def firings(width: int) -> NDArray[np.float32]:
        fires = rng.random((ROWS, width)) < 0.05
        return np.asarray(np.where(fires, rng.gamma(2.0, 1.0, (ROWS, width)), 0), np.float32)

    both = firings(SHARED)
    first = np.concatenate([both, firings(WIDTH - SHARED)], axis=1)
    noise = np.asarray(np.where(both > 0, rng.normal(scale=0.1, size=both.shape), 0), np.float32)
    again = np.maximum(3 * both + noise, 0)[:, ::-1]
    return first, np.concatenate([firings(WIDTH - SHARED), again], axis=1)


def compared(verified: NDArray[np.bool_] | None = None) -> LayerComparison:
    first, second = planted()
    every = np.ones(WIDTH, bool) if verified is None else verified
    return compare_layers(layer_of(codes_of(first), WIDTH, every), layer_of(codes_of(second), WIDTH, every))


def test_the_same_concepts_are_found_in_both_layers_whatever_their_scale_and_place() -> None:
    found = compared()
    places = WIDTH - 1 - np.arange(SHARED)
    assert found.a.partner[:SHARED].tolist() == places.tolist()
    assert found.b.partner[places].tolist() == list(range(SHARED))
    assert (found.a.correlation[:SHARED] > 0.95).all()
    assert found.rows == ROWS
    assert np.flatnonzero(found.a.shared).tolist() == list(range(SHARED))
    assert np.flatnonzero(found.a.alone).tolist() == list(range(SHARED, WIDTH))
    assert found.a.share == found.b.share == pytest.approx(SHARED / WIDTH)
    assert found.a.by_chance == found.b.by_chance == 0


def test_correlations_are_those_of_the_dense_values() -> None:
    first, second = planted()
    found = compared()
    dense = np.corrcoef(first.T, second.T)[:WIDTH, WIDTH:]
    for latent in range(SHARED):
        assert found.a.partner[latent] == dense[latent].argmax()
        assert found.a.correlation[latent] == pytest.approx(dense[latent].max(), abs=1e-6)


def test_shares_are_of_verified_concepts_that_fire_often_enough() -> None:
    first, second = planted()
    first[9:, 0] = 0  # fires on nine rows at most: nothing is said of it
    verified = np.zeros(WIDTH, bool)
    verified[[0, 1, 2, WIDTH - SHARED]] = True
    a = layer_of(codes_of(first), WIDTH, verified)
    b = layer_of(codes_of(second), WIDTH, np.ones(WIDTH, bool))
    side = compare_layers(a, b).a
    assert not side.judged[0]
    assert np.flatnonzero(side.shared).tolist() == [1, 2]
    assert np.flatnonzero(side.alone).tolist() == [WIDTH - SHARED]
    assert side.share == pytest.approx(2 / 3)
    assert compared(np.zeros(WIDTH, bool)).a.share == 0


def test_latents_with_most_activation_come_first() -> None:
    side = compared().a
    listed = side.strongest_first(side.shared)
    assert sorted(listed.tolist()) == list(range(SHARED))
    assert (np.diff(side.mass[listed]) <= 0).all()


def test_of_few_rows_and_many_latents_chance_finds_counterparts_and_the_control_shows_it() -> None:
    rng = np.random.default_rng(0)
    first, second = (np.asarray(rng.random((24, 300)) * (rng.random((24, 300)) < 0.6), np.float32) for _ in range(2))
    every = np.ones(300, bool)
    found = compare_layers(layer_of(codes_of(first), 300, every), layer_of(codes_of(second), 300, every))
    assert found.a.share > 0.5
    assert found.a.by_chance == pytest.approx(found.a.share, abs=0.15)
    assert found.b.by_chance == pytest.approx(found.b.share, abs=0.15)


def test_layers_of_other_rows_are_not_compared() -> None:
    first, second = planted()
    every = np.ones(WIDTH, bool)
    with pytest.raises(InvalidRequestError, match="the same probe rows, not on 2000 and 1999"):
        compare_layers(layer_of(codes_of(first), WIDTH, every), layer_of(codes_of(second[:-1]), WIDTH, every))
