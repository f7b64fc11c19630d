"""An SAE turned into another model's space reads there what it read before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.alignment import Alignment, align
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.turning import turn_weights
from recsae.sae.weights import SaeWeights

D, WIDTH, K = 16, 48, 4


def weights(seed: int = 0) -> SaeWeights:
    random = np.random.default_rng(seed)
    w_dec = random.normal(size=(WIDTH, D)).astype(np.float32)
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    bias = random.normal(size=(WIDTH,)).astype(np.float32)
    mean = random.normal(size=(D,)).astype(np.float32)
    return SaeWeights(w_dec.copy(), 0.3 * bias, w_dec, mean, mean)


def spaces() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rows of an old space, and the same rows turned, three times as long and moved: the new space."""
    random = np.random.default_rng(1)
    old = random.normal(size=(400, D)) * np.linspace(0.5, 2, D)
    rotation = np.linalg.qr(random.normal(size=(D, D)))[0]
    return (3 * old @ rotation + 7).astype(np.float32), old.astype(np.float32)


def loaded(of: SaeWeights, folder: Path) -> SparseAutoencoder:
    export_sae(of, K, TrainingFacts(error_p99=1.0, mean_norm=1.0), folder)
    return SparseAutoencoder.load(folder, "v")


def test_the_same_latents_fire_on_the_same_histories_in_units_of_the_new_space(tmp_path: Path) -> None:
    new, old = spaces()
    turned = turn_weights(weights(), align(new, old), new, old)
    before, after = loaded(weights(), tmp_path / "old"), loaded(turned, tmp_path / "new")
    codes, again = before.encode(old), after.encode(new)
    fires = codes.fired
    assert fires.mean() > 0.9
    np.testing.assert_array_equal(again.indices[fires], codes.indices[fires])
    np.testing.assert_allclose(again.values, 3 * codes.values, rtol=1e-3, atol=1e-3)
    errors = before.relative_error(old, before.decode(codes)), after.relative_error(new, after.decode(again))
    assert np.median(errors[0]) < 1
    np.testing.assert_allclose(
        np.linalg.norm(new - after.decode(again), axis=1),
        3 * np.linalg.norm(old - before.decode(codes), axis=1),
        rtol=1e-2,
    )


def test_another_dimension_is_refused() -> None:
    new, old = spaces()
    with pytest.raises(InvalidRequestError, match="cannot be turned by a rotation"):
        turn_weights(weights(), Alignment(np.eye(D, D + 1, dtype=np.float32), 1.0), new, old)
