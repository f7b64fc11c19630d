"""SAELens' format as its reader expects it; that sae-lens itself reads it is proven in tests/optional."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.saelens import CONFIG_FILE, WEIGHTS_FILE, write_saelens
from recsae.sae.weights import SaeWeights

D, WIDTH, K = 12, 96, 5

Array = NDArray[np.float32]


def weights(seed: int = 0) -> SaeWeights:
    rng = np.random.default_rng(seed)
    w_dec = rng.normal(size=(WIDTH, D))
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    return SaeWeights(
        w_enc=(w_dec + 0.1 * rng.normal(size=(WIDTH, D))).astype(np.float32),
        b_enc=(0.1 * rng.normal(size=WIDTH)).astype(np.float32),
        w_dec=w_dec.astype(np.float32),
        b_dec=(3 * rng.normal(size=D)).astype(np.float32),
        mean=rng.normal(size=D).astype(np.float32),
    )


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    return json.loads((folder / CONFIG_FILE).read_text()), safetensors.numpy.load_file(folder / WEIGHTS_FILE)


def preactivation(arrays: dict[str, Array], x: Array) -> Array:
    """What SAELens computes before its activation function: (x - b_dec) W_enc + b_enc."""
    return np.asarray((x - arrays["b_dec"]) @ arrays["W_enc"] + arrays["b_enc"], np.float32)


def test_a_topk_sae_has_the_names_shapes_and_configuration_of_saelens(tmp_path: Path) -> None:
    write_saelens(weights(), tmp_path / "lens", k=K, facts={"model": "sasrec"})
    config, arrays = read(tmp_path / "lens")
    assert {name: array.shape for name, array in arrays.items()} == {
        "W_enc": (D, WIDTH), "b_enc": (WIDTH,), "W_dec": (WIDTH, D), "b_dec": (D,),
    }  # fmt: skip
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    metadata = config.pop("metadata")
    assert metadata["sae_lens_version"].startswith("6.")
    assert metadata["model"] == "sasrec"
    assert config == {
        "architecture": "topk", "d_in": D, "d_sae": WIDTH, "k": K, "rescale_acts_by_decoder_norm": False,
        "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
        "normalize_activations": "none", "reshape_activations": "none",
    }  # fmt: skip


def test_the_k_largest_of_saelens_formula_are_the_served_latents(tmp_path: Path) -> None:
    export_sae(weights(), K, TrainingFacts(error_p99=0.4, mean_norm=3.0), tmp_path / "sae")
    write_saelens(weights(), tmp_path / "lens", k=K)
    x = np.random.default_rng(1).normal(size=(200, D)).astype(np.float32)
    latents = np.maximum(preactivation(read(tmp_path / "lens")[1], x), 0)
    cut = np.sort(latents, axis=1)[:, -K][:, None]
    served = SparseAutoencoder.load(tmp_path / "sae", "v").encode(x).dense(WIDTH)
    np.testing.assert_allclose(np.where(latents >= cut, latents, 0), served, atol=1e-5)


def test_a_threshold_becomes_a_jumprelu_with_one_threshold_per_latent(tmp_path: Path) -> None:
    write_saelens(weights(), tmp_path, k=K, threshold=0.7)
    config, arrays = read(tmp_path)
    assert config["architecture"] == "jumprelu"
    assert "k" not in config
    np.testing.assert_array_equal(arrays["threshold"], np.full(WIDTH, 0.7, np.float32))


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf")])
def test_thresholds_that_relu_would_change_are_refused(tmp_path: Path, threshold: float) -> None:
    with pytest.raises(InvalidRequestError, match="must be >= 0"):
        write_saelens(weights(), tmp_path / "lens", k=K, threshold=threshold)
    assert not (tmp_path / "lens").exists()


@pytest.mark.parametrize("k", [0, WIDTH + 1])
def test_k_outside_the_width_is_refused(tmp_path: Path, k: int) -> None:
    with pytest.raises(InvalidRequestError, match=r"within 1\.\.96"):
        write_saelens(weights(), tmp_path / "lens", k=k)
