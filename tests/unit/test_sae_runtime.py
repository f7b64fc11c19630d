"""The SAE as served: exported, loaded, encoded and decoded without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from recsae.errors import CorruptArtifactError, InvalidRequestError
from recsae.sae.codes import Codes, concatenate
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.weights import SaeWeights, fold

D, WIDTH, K = 24, 192, 6
FACTS = TrainingFacts(error_p99=0.4, mean_norm=3.0, scores={"fvu": 0.1}, config={"variant": "topk"})


def _weights(seed: int = 0) -> SaeWeights:
    rng = np.random.default_rng(seed)
    w_dec = rng.normal(size=(WIDTH, D))
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    return SaeWeights(
        w_enc=(w_dec + 0.1 * rng.normal(size=(WIDTH, D))).astype(np.float32),
        b_enc=(0.1 * rng.normal(size=WIDTH)).astype(np.float32),
        w_dec=w_dec.astype(np.float32),
        b_dec=rng.normal(size=D).astype(np.float32),
        mean=rng.normal(size=D).astype(np.float32),
    )


def _activations(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export_sae(_weights(), K, FACTS, tmp_path)
    return tmp_path


@pytest.fixture
def sae(folder: Path) -> SparseAutoencoder:
    return SparseAutoencoder.load(folder, "0123456789abcdef")


def _oracle(weights: SaeWeights, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    pre = np.maximum((x.astype(np.float64) - weights.b_dec) @ weights.w_enc.T.astype(np.float64) + weights.b_enc, 0)
    latents = np.zeros_like(pre)
    for row, values in enumerate(pre):
        best = np.argsort(-values, kind="stable")[:k]
        latents[row, best] = values[best]
    return latents, latents @ weights.w_dec + weights.b_dec


def test_codes_and_reconstruction_equal_the_formula(sae: SparseAutoencoder) -> None:
    x = _activations(50)
    latents, x_hat = _oracle(_weights(), x, K)
    codes = sae.encode(x)
    np.testing.assert_allclose(codes.dense(WIDTH), latents, atol=1e-5)
    np.testing.assert_allclose(sae.decode(codes), x_hat, atol=1e-5)
    assert (np.diff(codes.values, axis=1) <= 0).all()


def test_a_row_has_the_same_bits_in_every_batch(sae: SparseAutoencoder) -> None:
    x = _activations(300)
    codes = sae.encode(x)
    x_hat = sae.decode(codes)
    for size in (1, 2, 3, 7, 64):
        for at in range(0, len(x) - size, 2 * size + 1):
            part = slice(at, at + size)
            alone = sae.encode(x[part])
            np.testing.assert_array_equal(alone.indices, codes.indices[part])
            np.testing.assert_array_equal(alone.values, codes.values[part])
            np.testing.assert_array_equal(sae.decode(alone), x_hat[part])


def test_rows_where_fewer_than_k_latents_fire_are_padded_with_zeros(tmp_path: Path) -> None:
    weights = _weights()
    silent = SaeWeights(weights.w_enc, np.full(WIDTH, -1e3, np.float32), weights.w_dec, weights.b_dec, weights.mean)
    export_sae(silent, K, FACTS, tmp_path)
    sae = SparseAutoencoder.load(tmp_path, "ab")
    codes = sae.encode(_activations(4))
    assert not codes.fired.any()
    assert len(set(codes.indices[0])) == K
    np.testing.assert_array_equal(sae.decode(codes), np.tile(weights.b_dec, (4, 1)))


def test_no_rows_give_no_rows(sae: SparseAutoencoder) -> None:
    codes = sae.encode(np.zeros((0, D), np.float32))
    assert codes.indices.shape == (0, K)
    assert sae.decode(codes).shape == (0, D)


def test_large_calls_are_cut_into_chunks_without_changing_a_bit(
    sae: SparseAutoencoder, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    x = _activations(100)
    whole = sae.encode(x)
    x_hat = sae.decode(whole)
    monkeypatch.setattr("recsae.sae.runtime._ENCODE_SCRATCH_FLOATS", 7 * WIDTH)
    monkeypatch.setattr("recsae.sae.runtime._DECODE_SCRATCH_FLOATS", 9 * K * D)
    chunked = SparseAutoencoder.load(folder, "0123456789abcdef")
    np.testing.assert_array_equal(chunked.encode(x).values, whole.values)
    np.testing.assert_array_equal(chunked.decode(whole), x_hat)


def test_many_threads_share_one_session(sae: SparseAutoencoder) -> None:
    batches = [_activations(20, seed) for seed in range(16)]
    expected = [sae.encode(batch).values for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda batch: sae.encode(batch).values, batches * 4))
    for at, values in enumerate(got):
        np.testing.assert_array_equal(values, expected[at % len(batches)])


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, D + 1), np.float32),
        np.zeros(D, np.float32),
        np.zeros((2, D), np.float64),
        np.full((2, D), np.nan, np.float32),
        np.full((2, D), np.inf, np.float32),
    ],
)
def test_activations_it_cannot_read_are_refused(sae: SparseAutoencoder, x: np.ndarray) -> None:
    with pytest.raises(InvalidRequestError):
        sae.encode(x)


@pytest.mark.parametrize("latent", [-1, WIDTH])
def test_codes_of_another_sae_are_refused(sae: SparseAutoencoder, latent: int) -> None:
    codes = Codes(np.full((1, K), latent, np.int32), np.ones((1, K), np.float32))
    with pytest.raises(InvalidRequestError, match="another SAE"):
        sae.decode(codes)


def test_folding_the_normalisation_is_exact_even_far_from_the_origin(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    scale = 0.037
    normalised = _weights(3)
    mean = (40 + rng.normal(size=D)).astype(np.float32)
    normalised = SaeWeights(normalised.w_enc, normalised.b_enc, normalised.w_dec, normalised.b_dec, mean)
    x_n = rng.normal(size=(200, D))
    x = (x_n * scale + mean).astype(np.float32)
    x_n = (x.astype(np.float64) - mean) / scale
    latents, x_hat = _oracle(normalised, x_n, K)
    export_sae(fold(normalised, scale), K, FACTS, tmp_path)
    sae = SparseAutoencoder.load(tmp_path, "ab")
    codes = sae.encode(x)
    assert np.mean(np.sort(codes.indices) == np.sort(np.argsort(-latents)[:, :K])) > 0.99
    np.testing.assert_allclose(codes.dense(WIDTH), scale * latents, atol=2e-5)
    np.testing.assert_allclose(sae.decode(codes), scale * x_hat + mean, atol=2e-5)
    np.testing.assert_array_equal(sae.w_dec, normalised.w_dec)


def test_relative_error_is_zero_for_exact_and_one_for_the_mean(sae: SparseAutoencoder) -> None:
    x = _activations(5)
    np.testing.assert_array_equal(sae.relative_error(x, x), np.zeros(5, np.float32))
    np.testing.assert_allclose(sae.relative_error(x, np.tile(sae.mean, (5, 1))), np.ones(5), rtol=1e-6)


def test_facts_survive_the_round_trip(sae: SparseAutoencoder) -> None:
    assert (sae.d, sae.width, sae.k, sae.version) == (D, WIDTH, K, "0123456789abcdef")
    assert (sae.error_p99, sae.mean_norm) == (0.4, 3.0)
    assert sae.config["variant"] == "topk"
    assert sae.scores["fvu"] == 0.1


def test_files_that_do_not_fit_each_other_are_refused(folder: Path) -> None:
    facts = json.loads((folder / "sae.json").read_text())
    (folder / "sae.json").write_text(json.dumps(facts | {"width": WIDTH + 1}))
    with pytest.raises(CorruptArtifactError, match="says 193"):
        SparseAutoencoder.load(folder, "ab")
    (folder / "sae.json").write_text(json.dumps(facts | {"schema_version": 99}))
    with pytest.raises(CorruptArtifactError, match="99"):
        SparseAutoencoder.load(folder, "ab")
    (folder / "sae.json").write_text(json.dumps(facts))
    (folder / "sae.safetensors").write_bytes(b"not one")
    with pytest.raises(CorruptArtifactError, match="publish"):
        SparseAutoencoder.load(folder, "ab")


def test_decoder_rows_off_unit_norm_cannot_be_exported() -> None:
    weights = _weights()
    with pytest.raises(InvalidRequestError, match="unit norm"):
        SaeWeights(weights.w_enc, weights.b_enc, weights.w_dec * np.float32(1.01), weights.b_dec, weights.mean)


def test_codes_answer_what_fired() -> None:
    codes = Codes(
        np.array([[3, 1], [1, 0], [3, 2]], np.int32), np.array([[2.0, 1.0], [5.0, 0.0], [0.5, 0.0]], np.float32)
    )
    np.testing.assert_array_equal(codes.firing_counts(5), [0, 2, 0, 2, 0])
    np.testing.assert_array_equal(codes.strengths_of(3), [2.0, 0.0, 0.5])
    np.testing.assert_array_equal(concatenate([codes.take(slice(0, 1)), codes.take(slice(1, 3))]).values, codes.values)
    np.testing.assert_array_equal(codes.dense(4)[0], [0, 1, 0, 2])


@pytest.mark.parametrize("module", ["codes", "weights", "runtime", "shards", "batches", "evaluation", "fidelity"])
def test_serving_modules_import_neither_torch_nor_scipy(module: str) -> None:
    heavy = {"torch", "scipy", "onnx", "pyarrow"}
    program = f"import sys, recsae.sae.{module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
