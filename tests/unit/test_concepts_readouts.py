"""Readouts: what is chosen and fitted on some rows predicts others, from few features or all."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.readouts import all_of, as_features, best_single, best_thresholds, few, sparse_projection

Floats = NDArray[np.float32]


@pytest.fixture
def features() -> Floats:
    rng = np.random.default_rng(0)
    return np.maximum(rng.normal(size=(3000, 12)), 0).astype(np.float32)


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def test_the_best_single_feature_is_the_one_that_was_planted_whatever_its_sign(features: Floats) -> None:
    targets = np.stack([features[:, 3], -2 * features[:, 7]], axis=1).astype(np.float64)
    readout = best_single(features, targets)
    assert [used.tolist() for used in readout.features_used] == [[3], [7]]
    predicted = readout.predict(features)
    assert [correlation(predicted[:, at], targets[:, at]) for at in (0, 1)] == pytest.approx([1, 1])


def test_sparse_and_dense_features_are_read_alike(features: Floats) -> None:
    rng = np.random.default_rng(1)
    targets = features @ rng.normal(size=(12, 4)) + rng.normal(size=(3000, 4))
    for fit in (best_single, all_of, lambda one, other: few(one, other, 3)):
        dense, coded = fit(features, targets), fit(sparse.csr_matrix(features), targets)
        np.testing.assert_allclose(dense.weights, coded.weights, atol=1e-5)


def test_k_features_explain_a_sum_of_k_and_fewer_do_not(features: Floats) -> None:
    targets = (features[:, 1] + 2 * features[:, 4] - 3 * features[:, 9])[:, None].astype(np.float64)
    readouts = [few(features, targets, k) for k in (1, 2, 3)]
    assert [readout.features_used[0].tolist() for readout in readouts] == [[9], [4, 9], [1, 4, 9]]
    reached = [correlation(readout.predict(features)[:, 0], targets[:, 0]) for readout in readouts]
    assert reached == sorted(reached)
    assert reached[1] < 0.99 < reached[2]


def test_the_linear_probe_finds_what_no_single_feature_holds(features: Floats) -> None:
    targets = features.sum(axis=1, keepdims=True).astype(np.float64)
    probe, single = all_of(features, targets), best_single(features, targets)
    assert correlation(probe.predict(features)[:, 0], targets[:, 0]) > 0.999
    assert correlation(single.predict(features)[:, 0], targets[:, 0]) < 0.5


def test_a_property_that_never_varies_is_read_without_complaint(features: Floats) -> None:
    targets = np.zeros((3000, 1))
    for readout in (best_single(features, targets), few(features, targets, 2), all_of(features, targets)):
        assert np.isfinite(readout.predict(features)).all()


def test_thresholds_are_those_of_the_largest_f1() -> None:
    rng = np.random.default_rng(2)
    predicted = np.round(rng.normal(size=(400, 3)), 1)
    positive = rng.random((400, 3)) < 1 / (1 + np.exp(-predicted))

    def f1(column: int, threshold: float) -> float:
        called = predicted[:, column] >= threshold
        return float(2 * (called & positive[:, column]).sum() / (called.sum() + positive[:, column].sum()))

    found = best_thresholds(predicted, positive)
    for column in range(3):
        best = max(f1(column, value) for value in np.unique(predicted[:, column]))
        assert f1(column, found[column]) == pytest.approx(best)


def test_a_projection_keeps_the_k_largest_positive_values(features: Floats) -> None:
    rng = np.random.default_rng(3)
    directions = rng.normal(size=(20, 12)).astype(np.float32)
    centre = features.mean(axis=0)
    found = sparse_projection(features, centre, directions, 4)
    every = np.maximum((features - centre) @ directions.T, 0)
    expected = np.where(every >= np.sort(every, axis=1)[:, [-4]], every, 0)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-5)


def test_firings_become_features_of_rows() -> None:
    by_latent = sparse.csr_matrix(np.array([[0, 1, 2], [3, 0, 0]], np.float32))
    assert as_features(by_latent).toarray().tolist() == [[0, 3], [1, 0], [2, 0]]
