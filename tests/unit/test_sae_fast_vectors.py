"""The compiled loops in every shape they take, also those of CPUs other than this one, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from recsae.sae.fast.counting import make_collect, make_count, make_filter, make_largest
from recsae.sae.fast.gathering import gather_dots, gather_sum, gather_two_sums
from recsae.sae.fast.tiles import make_tile
from recsae.sae.fast.vectors import ROWS, SHAPE, VectorShape, cpu_features, has_int8_dot, vector_shape

# AVX2 and NEON shapes run on any CPU: LLVM splits or widens what does not fit.
SHAPES = sorted({SHAPE, VectorShape(8, 2), VectorShape(4, 4)}, key=lambda shape: shape.lanes)


def test_each_cpu_gets_its_shape() -> None:
    assert vector_shape(frozenset({"avx512f", "avx2"})) == VectorShape(16, 4)
    assert vector_shape(frozenset({"avx2"})) == VectorShape(8, 2)
    assert vector_shape(frozenset({"neon"})) == VectorShape(4, 4)
    assert has_int8_dot(frozenset({"avx512f", "avx512vnni"}))
    assert not has_int8_dot(frozenset({"avx2", "avxvnni"}))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_tile_is_a_product_of_matrices(shape: VectorShape) -> None:
    tile = make_tile(shape, int8=False)

    @njit
    def run(x, weights, bias, unused, out, tops, d):  # type: ignore[no-untyped-def]
        tile(x, 0, d, weights, 0, d, unused, bias, bias, 0, bias, 0, out, 0, len(bias), tops, 0, len(tops) // 6)

    rng = np.random.default_rng(0)
    d = 37
    x, w = (rng.normal(size=(n, d)).astype(np.float32) for n in (ROWS, shape.panel))
    bias = rng.normal(size=shape.panel).astype(np.float32)
    out, tops = np.zeros(ROWS * shape.panel, np.float32), np.zeros(ROWS * shape.lanes, np.float32)
    run(x.ravel(), np.ascontiguousarray(w.T).ravel(), bias, np.zeros(shape.panel, np.int32), out, tops, d)
    expected = x.astype(np.float64) @ w.T + bias
    np.testing.assert_allclose(out.reshape(ROWS, -1), expected, rtol=1e-5, atol=1e-5)
    lanes = out.reshape(ROWS, shape.columns, shape.lanes).max(axis=1)
    np.testing.assert_array_equal(tops.reshape(ROWS, -1), lanes)


THRESHOLDS = (-9.0, 0.0, 0.5, 2.0, 9.0)


def _ways(shape: VectorShape) -> list[frozenset[str]]:
    """With and without the instruction that packs vectors, where this CPU and shape have it."""
    packs = [frozenset({"avx512f"})] if "avx512f" in cpu_features() and shape.lanes == 16 else []
    return [frozenset(), *packs]


@pytest.mark.parametrize("shape", SHAPES)
def test_counting_sees_every_value(shape: VectorShape) -> None:
    count, largest = make_count(shape), make_largest(shape)

    @njit
    def run(values, at, vectors, threshold):  # type: ignore[no-untyped-def]
        return count(values, at, vectors, threshold), largest(values, at, vectors)

    values = np.random.default_rng(1).normal(size=shape.lanes * 12).astype(np.float32)
    window = values[shape.lanes : shape.lanes * 11]
    for threshold in (*THRESHOLDS, float(window.max())):
        counted, top = run(values, shape.lanes, 10, np.float32(threshold))
        assert counted == (window >= np.float32(threshold)).sum()
        assert top == window.max()


@pytest.mark.parametrize("shape", SHAPES)
def test_collecting_finds_every_score_that_reaches(shape: VectorShape) -> None:
    panels = 9
    scores = np.random.default_rng(2).normal(size=(panels + 1) * shape.panel).astype(np.float32)
    part = scores[shape.panel :]
    tops = np.ascontiguousarray(part.reshape(panels, shape.columns, shape.lanes).max(axis=1)).ravel()
    for features in _ways(shape):
        collect = make_collect(shape, features)

        @njit
        def run(scores, at, panels, threshold, tops, found, values, collect=collect):  # type: ignore[no-untyped-def]
            return collect(scores, at, panels, threshold, tops, 0, found, values)

        for threshold in THRESHOLDS:
            found = np.full(len(part) + shape.lanes, -1, np.int32)
            values = np.zeros(len(part) + shape.lanes, np.float32)
            count = run(scores, shape.panel, panels, np.float32(threshold), tops, found, values)
            expected = np.flatnonzero(part >= np.float32(threshold))
            np.testing.assert_array_equal(found[:count], expected)
            np.testing.assert_array_equal(values[:count], part[expected])


@pytest.mark.parametrize("shape", SHAPES)
def test_filtering_keeps_values_and_their_names_in_order(shape: VectorShape) -> None:
    values = np.random.default_rng(3).normal(size=5 * shape.lanes).astype(np.float32)
    names = np.random.default_rng(4).permutation(len(values)).astype(np.int32)
    for features in _ways(shape):
        keep = make_filter(shape, features)

        @njit
        def run(values, names, threshold, kept_values, kept_names, keep=keep):  # type: ignore[no-untyped-def]
            return keep(values, names, 5, threshold, kept_values, kept_names)

        for threshold in THRESHOLDS:
            kept_values = np.zeros(len(values) + shape.lanes, np.float32)
            kept_names = np.zeros(len(values) + shape.lanes, np.int32)
            count = run(values, names, np.float32(threshold), kept_values, kept_names)
            mask = values >= np.float32(threshold)
            np.testing.assert_array_equal(kept_values[:count], values[mask])
            np.testing.assert_array_equal(kept_names[:count], names[mask])


@pytest.mark.parametrize("d", [1, 15, 16, 64, 100, 256])
def test_gathered_sums_and_products_are_dense_ones_on_chosen_rows(d: int) -> None:
    rng = np.random.default_rng(d)
    table = rng.normal(size=(30, 3, d)).astype(np.float32)
    names, weights = rng.integers(0, 30, 20).astype(np.int32), rng.normal(size=20).astype(np.float32)
    out, other = np.ones(d, np.float32), np.full(d, 2, np.float32)
    gather_sum(out, table, 3 * d, d, names, weights, 4, 17)
    expected = weights[4:17] @ table[names[4:17], 1].astype(np.float64)
    np.testing.assert_allclose(out, 1 + expected, rtol=1e-4, atol=1e-5)
    gather_two_sums(out, other, table, 3 * d, d, 2 * d, names, weights, weights[::-1].copy(), 4, 17)
    np.testing.assert_allclose(out, 1 + 2 * expected, rtol=1e-4, atol=2e-5)
    second = weights[::-1][4:17] @ table[names[4:17], 2].astype(np.float64)
    np.testing.assert_allclose(other, 2 + second, rtol=1e-4, atol=2e-5)
    products, x = np.empty(20, np.float32), rng.normal(size=d).astype(np.float32)
    gather_dots(products, table, 3 * d, 2 * d, names, 20, x)
    np.testing.assert_allclose(products, table[names, 2].astype(np.float64) @ x, rtol=1e-4, atol=1e-4)
