"""sae-lens itself loads what we write and gives the same latents. `make saelens-test` installs it and runs this."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from recsae.sae.config import SaeConfig
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.saelens import write_saelens
from recsae.sae.weights import SaeWeights

D, WIDTH, K, ROWS = 64, 1024, 16, 512
SCRIPT = Path(__file__).with_name("encode_with_saelens.py")

Array = NDArray[np.float32]


class Loaded(NamedTuple):
    """What sae-lens made of the rows: its class of SAE, dense latents [n, w] and reconstructions [n, d]."""

    architecture: str
    latents: Array
    x_hat: Array


@pytest.fixture(scope="module")
def python() -> str:
    """A Python with sae-lens, named by RECSAE_TEST_SAELENS."""
    named = os.environ.get("RECSAE_TEST_SAELENS", "")
    if not named:
        pytest.skip("RECSAE_TEST_SAELENS names no Python that has sae-lens; `make saelens-test` installs one")
    return named


@pytest.fixture(scope="module")
def weights() -> SaeWeights:
    rng = np.random.default_rng(0)
    w_dec = rng.normal(size=(WIDTH, D))
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    return SaeWeights(
        w_enc=(w_dec + 0.05 * rng.normal(size=(WIDTH, D))).astype(np.float32),
        b_enc=(0.1 * rng.normal(size=WIDTH)).astype(np.float32),
        w_dec=w_dec.astype(np.float32),
        b_dec=(2 * rng.normal(size=D)).astype(np.float32),
        mean=rng.normal(size=D).astype(np.float32),
    )


@pytest.fixture(scope="module")
def x(weights: SaeWeights) -> Array:
    return (weights.b_dec + np.random.default_rng(1).normal(size=(ROWS, D))).astype(np.float32)


def load_in_saelens(python: str, folder: Path, x: Array) -> Loaded:
    safetensors.numpy.save_file({"x": x}, folder / "x.safetensors")
    command = [python, str(SCRIPT), str(folder), str(folder / "x.safetensors"), str(folder / "out.safetensors")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    arrays = safetensors.numpy.load_file(folder / "out.safetensors")
    return Loaded(done.stdout.split()[-1], arrays["latents"], arrays["x_hat"])


def test_saelens_gives_the_latents_that_are_served(python: str, weights: SaeWeights, x: Array, tmp_path: Path) -> None:
    """TopK, and a Matryoshka SAE, which encodes the same way."""
    for variant in ("topk", "matryoshka"):
        config = SaeConfig(d=D, width=WIDTH, k=K, variant=variant).as_dict()
        export_sae(weights, K, TrainingFacts(error_p99=0.4, mean_norm=3.0, config=config), tmp_path / variant)
        served = SparseAutoencoder.load(tmp_path / variant, "v")
        write_saelens(weights, tmp_path / f"{variant}-lens", k=served.k)
        loaded = load_in_saelens(python, tmp_path / f"{variant}-lens", x)
        codes = served.encode(x)
        latents = codes.dense(WIDTH)
        assert loaded.architecture == "TopKSAE"
        np.testing.assert_array_equal(loaded.latents > 0, latents > 0)
        np.testing.assert_allclose(loaded.latents, latents, atol=1e-5)
        np.testing.assert_allclose(loaded.x_hat, served.decode(codes), atol=1e-5)


def test_saelens_applies_the_threshold_of_batchtopk_as_we_do(
    python: str, weights: SaeWeights, x: Array, tmp_path: Path
) -> None:
    """On rows where no latent lies within rounding of the threshold, and no more pass it than a row keeps."""
    threshold, slots = 2.0, 4 * K
    export_sae(weights, K, TrainingFacts(0.4, 3.0), tmp_path / "sae", slots=slots, threshold=threshold)
    served = SparseAutoencoder.load(tmp_path / "sae", "v")
    before = (x - weights.b_dec).astype(np.float64) @ weights.w_enc.T.astype(np.float64) + weights.b_enc
    clear = (np.abs(before - threshold) > 1e-5).all(axis=1) & ((before > threshold).sum(axis=1) <= slots)
    assert clear.mean() > 0.9
    write_saelens(weights, tmp_path / "lens", k=K, threshold=served.threshold)
    loaded = load_in_saelens(python, tmp_path / "lens", x[clear])
    codes = served.encode(x[clear])
    latents = codes.dense(WIDTH)
    assert loaded.architecture == "JumpReLUSAE"
    assert K < codes.fired.sum(axis=1).mean() < slots
    np.testing.assert_array_equal(loaded.latents > 0, latents > 0)
    np.testing.assert_allclose(loaded.latents, latents, atol=1e-5)
    np.testing.assert_allclose(loaded.x_hat, served.decode(codes), atol=1e-5)
