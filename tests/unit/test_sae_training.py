"""Training end to end on small data: recovery, determinism, resuming, stopping, what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from recsae.errors import CorruptArtifactError, FailedPreconditionError, InvalidRequestError
from recsae.sae.batches import ArrayRows, ShuffledBatches, measure_normalisation
from recsae.sae.checkpoint import load_checkpoint, save_checkpoint, training_identity
from recsae.sae.codes import Codes
from recsae.sae.config import VARIANTS, SaeConfig, Variant
from recsae.sae.engine import open_engine
from recsae.sae.evaluation import reconstruction_sums
from recsae.sae.execution import Backend, Execution
from recsae.sae.meter import Progress
from recsae.sae.model import Active, decode, keep_largest, preactivations
from recsae.sae.ranks import Alone
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.training import Checkpoints, TrainingStoppedError, start_state, train_sae
from recsae.sae.weights import load_weights

ATOMS, D, ACTIVE = 48, 24, 3
CONFIG = SaeConfig(
    d=D, width=96, k=4, epochs=3, batch_size=128, buffer_rows=512, aux_k=8, dead_after=200, learning_rate=3e-3
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _planted(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are sums of ACTIVE of ATOMS unit vectors, away from the origin; and the atoms."""
    rng = np.random.default_rng(seed)
    atoms = np.random.default_rng(0).normal(size=(ATOMS, D))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    chosen = np.argsort(rng.random((n, ATOMS)), axis=1)[:, :ACTIVE]
    x = np.einsum("nk,nkd->nd", rng.uniform(0.5, 1.5, size=(n, ACTIVE)), atoms[chosen])
    return (5.0 + x).astype(np.float32), atoms


def _train(x: np.ndarray, config: SaeConfig, out: Path) -> SparseAutoencoder:
    train_sae(ArrayRows(x), config, out)
    return SparseAutoencoder.load(out, "ab")


def test_a_planted_dictionary_is_recovered(tmp_path: Path) -> None:
    x, atoms = _planted(12_000, 1)
    config = SaeConfig(d=D, width=96, k=4, epochs=25, batch_size=256, aux_k=12, dead_after=6_000, learning_rate=3e-3)
    sae = _train(x, config, tmp_path)
    held_out, _ = _planted(2_000, 2)
    sums = reconstruction_sums(sae, [held_out])
    best = (atoms @ sae.w_dec.T).max(axis=1)
    assert (best > 0.95).mean() > 0.9, np.sort(best)
    assert sums.fvu < 0.1
    # Random unit rows of the same number: what the claim would be worth without training.
    chance = np.random.default_rng(5).normal(size=(96, D))
    chance /= np.linalg.norm(chance, axis=1, keepdims=True)
    assert ((atoms @ chance.T).max(axis=1) > 0.95).mean() == 0


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    x, _ = _planted(1_500, 1)
    first, again = _train(x, CONFIG, tmp_path / "a"), _train(x, CONFIG, tmp_path / "b")
    np.testing.assert_array_equal(first.w_dec, again.w_dec)
    assert (tmp_path / "a/encoder.onnx").read_bytes() == (tmp_path / "b/encoder.onnx").read_bytes()
    other = _train(x, SaeConfig(**{**CONFIG.as_dict(), "seed": 1}), tmp_path / "c")
    assert not np.array_equal(first.w_dec, other.w_dec)


@pytest.mark.parametrize("backend", ["torch", "fast"])
@pytest.mark.parametrize("stop_at", [1, 11, 13, 35])
def test_resuming_gives_the_bits_of_an_uninterrupted_run(tmp_path: Path, stop_at: int, backend: Backend) -> None:
    x, _ = _planted(1_500, 1)  # 12 batches an epoch, the last one short; 3 buffers
    execution = Execution(backend)
    whole_state = Checkpoints(tmp_path / "whole-state")
    train_sae(ArrayRows(x), CONFIG, tmp_path / "whole", checkpoints=whole_state, execution=execution)
    calls = iter(range(1_000))
    checkpoints = Checkpoints(tmp_path / "state")
    with pytest.raises(TrainingStoppedError, match=f"after {stop_at} of 36"):
        train_sae(
            ArrayRows(x),
            CONFIG,
            tmp_path / "resumed",
            should_stop=lambda: next(calls) == stop_at,
            checkpoints=checkpoints,
            execution=execution,
        )
    assert not (tmp_path / "resumed").exists()
    train_sae(ArrayRows(x), CONFIG, tmp_path / "resumed", checkpoints=checkpoints, execution=execution)
    for name in ("encoder.onnx", "sae.safetensors", "sae.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes(), name
    whole = safetensors.numpy.load_file(tmp_path / "whole-state/checkpoint.safetensors")
    resumed = safetensors.numpy.load_file(checkpoints.file)
    for name, array in whole.items():  # optimiser and counters included
        np.testing.assert_array_equal(array, resumed[name], err_msg=name)


def test_an_exception_between_checkpoints_costs_only_the_steps_since_the_last(tmp_path: Path) -> None:
    x, _ = _planted(1_500, 1)
    checkpoints = Checkpoints(tmp_path, every_s=0.0)  # at every step
    calls = iter(range(1_000))

    def crash() -> bool:
        if next(calls) == 9:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train_sae(ArrayRows(x), CONFIG, tmp_path / "out", should_stop=crash, checkpoints=checkpoints)
    state = load_checkpoint(checkpoints.file, training_identity(CONFIG, ArrayRows(x)))
    assert state is not None
    assert state.step == 9


def test_a_checkpoint_of_other_data_or_another_configuration_is_refused(tmp_path: Path) -> None:
    x, _ = _planted(1_500, 1)
    checkpoints = Checkpoints(tmp_path)
    train_sae(ArrayRows(x), CONFIG, tmp_path / "out", checkpoints=checkpoints)
    with pytest.raises(FailedPreconditionError, match="delete it"):
        train_sae(ArrayRows(x + 1), CONFIG, tmp_path / "out", checkpoints=checkpoints)
    other = SaeConfig(**{**CONFIG.as_dict(), "k": 5})
    with pytest.raises(FailedPreconditionError, match="delete it"):
        train_sae(ArrayRows(x), other, tmp_path / "out", checkpoints=checkpoints)
    checkpoints.file.write_bytes(b"torn")
    with pytest.raises(CorruptArtifactError, match="delete it"):
        train_sae(ArrayRows(x), CONFIG, tmp_path / "out", checkpoints=checkpoints)


def test_a_finished_run_is_exported_again_without_training(tmp_path: Path) -> None:
    x, _ = _planted(1_500, 1)
    checkpoints = Checkpoints(tmp_path)
    train_sae(ArrayRows(x), CONFIG, tmp_path / "a", checkpoints=checkpoints)
    reports: list[Progress] = []
    train_sae(ArrayRows(x), CONFIG, tmp_path / "b", progress=reports.append, checkpoints=checkpoints)
    assert reports == []
    assert (tmp_path / "a/sae.safetensors").read_bytes() == (tmp_path / "b/sae.safetensors").read_bytes()


def test_the_exported_encoder_equals_torch(tmp_path: Path) -> None:
    x, _ = _planted(1_500, 1)
    sae = _train(x, CONFIG, tmp_path)
    w = load_weights(tmp_path)
    centred = torch.from_numpy(x - w.b_dec)
    pre = torch.addmm(torch.from_numpy(w.b_enc), centred, torch.from_numpy(w.w_enc).T)
    active = keep_largest(pre, CONFIG.k)
    dense = torch.zeros_like(pre).scatter(1, active.indices, active.values)
    codes = sae.encode(x)
    np.testing.assert_allclose(codes.dense(CONFIG.width), dense.numpy(), atol=1e-5)
    x_hat = decode(active, torch.from_numpy(w.w_dec)).numpy() + w.b_dec
    np.testing.assert_allclose(sae.decode(codes), x_hat, atol=1e-5)


def test_batchtopk_is_exported_with_the_threshold_that_stands_for_the_batch(tmp_path: Path) -> None:
    x, _ = _planted(3_000, 1)
    config = SaeConfig(**{**CONFIG.as_dict(), "variant": "batchtopk"})
    sae = _train(x, config, tmp_path)
    w = load_weights(tmp_path)
    assert (sae.k, sae.slots) == (config.k, 4 * config.k)
    assert sae.threshold > 0
    centred = torch.from_numpy(x - w.b_dec)
    pre = torch.addmm(torch.from_numpy(w.b_enc), centred, torch.from_numpy(w.w_enc).T).numpy()
    codes = sae.encode(x)
    assert codes.fired.sum() / len(x) == pytest.approx(config.k, rel=0.01)
    assert len(set(codes.fired.sum(axis=1).tolist())) > 3  # rows share k out between them
    edge = np.abs(pre - sae.threshold) < 1e-5
    expected, found = np.where(edge | (pre <= sae.threshold), 0, pre), np.where(edge, 0, codes.dense(config.width))
    full = (expected > 0).sum(axis=1) > sae.slots  # such a row keeps the largest
    assert full.mean() < 0.01
    np.testing.assert_allclose(found[~full], expected[~full], atol=1e-5)


def test_matryoshka_prefixes_reconstruct_by_themselves(tmp_path: Path) -> None:
    x, _ = _planted(6_000, 1)
    held_out, _ = _planted(1_000, 2)
    shares = (0.25, 0.5, 1.0)
    fvu = {}
    for variant in ("topk", "matryoshka"):
        config = SaeConfig(
            **{**CONFIG.as_dict(), "variant": variant, "prefix_shares": shares, "epochs": 20, "dead_after": 3_000}
        )
        sae = _train(x, config, tmp_path / variant)
        codes = sae.encode(held_out)
        for share in shares:
            inside = np.where(codes.indices < share * config.width, codes.values, np.float32(0))
            errors = np.square(held_out - sae.decode(Codes(codes.indices, inside)), dtype=np.float64).sum()
            fvu[variant, share] = errors / np.square(held_out - sae.mean, dtype=np.float64).sum()
    assert fvu["matryoshka", 0.25] > fvu["matryoshka", 0.5] > fvu["matryoshka", 1.0]
    assert fvu["matryoshka", 0.25] < 0.8 * fvu["topk", 0.25]


@pytest.mark.parametrize("backend", ["torch", "fast"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_on_every_engine(tmp_path: Path, variant: Variant, backend: Backend) -> None:
    x, _ = _planted(3_000, 1)
    config = SaeConfig(**{**CONFIG.as_dict(), "variant": variant, "epochs": 8})
    facts = train_sae(ArrayRows(x), config, tmp_path, execution=Execution(backend, threads=2))
    assert facts.scores["train_fvu"] < 0.4, facts.scores
    assert facts.scores["train_dead"] < 0.2


def test_a_warm_start_begins_where_the_other_sae_ended(tmp_path: Path) -> None:
    x, _ = _planted(3_000, 1)
    long = SaeConfig(**{**CONFIG.as_dict(), "epochs": 20})
    _train(x, long, tmp_path / "first")
    start = load_weights(tmp_path / "first")
    reports: dict[str, list[Progress]] = {"cold": [], "warm": []}
    for name, given in (("cold", None), ("warm", start)):
        config = SaeConfig(**{**CONFIG.as_dict(), "epochs": 1, "seed": 5, "learning_rate": 1e-4})
        train_sae(ArrayRows(x + np.float32(0.01)), config, tmp_path / name, progress=reports[name].append, start=given)
    assert reports["warm"][-1].fvu < 0.5 * reports["cold"][-1].fvu
    warm = load_weights(tmp_path / "warm")
    assert float((warm.w_dec * start.w_dec).sum(axis=1).min()) > 0.9  # latents are still who they were


def test_the_export_equals_the_trained_parameters_behind_their_normalisation(tmp_path: Path) -> None:
    x, _ = _planted(1_500, 1)
    rows, checkpoints = ArrayRows(x), Checkpoints(tmp_path)
    sae = _train_with(rows, checkpoints, tmp_path / "out")
    normalisation = measure_normalisation(rows)
    state = load_checkpoint(checkpoints.file, training_identity(CONFIG, rows))
    assert state is not None
    p = state.parameters
    centred = torch.from_numpy(normalisation.apply(x)) - p.b_dec
    active: Active = keep_largest(preactivations(p, centred), CONFIG.k)
    x_hat = (decode(active, p.w_dec) + p.b_dec).numpy() * normalisation.scale + normalisation.mean
    np.testing.assert_allclose(sae.decode(sae.encode(x)), x_hat, atol=2e-5)
    np.testing.assert_allclose(sae.mean, x.mean(axis=0), rtol=1e-5)


def _train_with(rows: ArrayRows, checkpoints: Checkpoints, out: Path) -> SparseAutoencoder:
    train_sae(rows, CONFIG, out, checkpoints=checkpoints)
    return SparseAutoencoder.load(out, "ab")


def test_progress_is_reported_to_the_end_and_facts_are_measured_on_the_export(tmp_path: Path) -> None:
    x, _ = _planted(1_500, 1)
    reports: list[Progress] = []
    facts = train_sae(ArrayRows(x), CONFIG, tmp_path, progress=reports.append)
    assert (reports[-1].step, reports[-1].share, reports[-1].eta_s) == (36, 1.0, 0.0)
    assert 0 < reports[-1].fvu < 1
    assert 0 < reports[-1].l0 <= CONFIG.k
    sae = SparseAutoencoder.load(tmp_path, "ab")
    errors = sae.relative_error(x, sae.decode(sae.encode(x)))
    assert facts.error_p99 == pytest.approx(float(np.percentile(errors, 99)))
    assert sae.error_p99 == facts.error_p99
    assert facts.scores["train_fvu"] == pytest.approx(reconstruction_sums(sae, [x]).fvu, rel=1e-5)
    assert sae.mean_norm == pytest.approx(float(np.linalg.norm(x, axis=1).mean()), rel=1e-5)
    assert sae.config["width"] == CONFIG.width


@pytest.mark.parametrize("backend", ["torch", "fast"])
def test_auxk_brings_dead_latents_back(backend: Backend) -> None:
    x, _ = _planted(3_000, 1)
    rows = ArrayRows(x)
    normalisation = measure_normalisation(rows)

    def dead_after(alpha: float) -> int:
        config = SaeConfig(**{**CONFIG.as_dict(), "aux_alpha": alpha, "dead_after": 800})
        state = start_state(rows, config, normalisation)
        state.parameters.b_enc[::2] -= 0.5  # half of them cannot compete
        engine = open_engine(state, config, Execution(backend), Alone())
        batches = ShuffledBatches(rows, CONFIG.batch_size, CONFIG.buffer_rows, 0)
        for batch in batches.from_step(0, 200):
            engine.follow(engine.gradient(normalisation.apply(batch)), 3e-3)
        engine.close()
        return int(engine.state.dead(800).sum())

    assert dead_after(0.0) > 30
    assert dead_after(1 / 32) < 10


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.full((300, D), np.nan, np.float32), "NaN"),
        (np.ones((300, D), np.float32), "variance"),
        (np.ones((300, D + 1), np.float32), "length 25"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused(tmp_path: Path, x: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        train_sae(ArrayRows(x), CONFIG, tmp_path)


@pytest.mark.parametrize("rate", [1e3, 1e30])
def test_divergence_ends_with_a_sentence(tmp_path: Path, rate: float) -> None:
    x, _ = _planted(1_500, 1)
    config = SaeConfig(**{**CONFIG.as_dict(), "learning_rate": rate})
    with pytest.raises(FailedPreconditionError, match="lower learning_rate"):
        train_sae(ArrayRows(x), config, tmp_path)


@pytest.mark.parametrize("backend", ["torch", "fast"])
def test_an_encoder_that_is_no_number_ends_training_too(tmp_path: Path, backend: Backend) -> None:
    rows, checkpoints, calls = ArrayRows(_planted(1_500, 1)[0]), Checkpoints(tmp_path), iter(range(100))
    with pytest.raises(TrainingStoppedError):
        train_sae(rows, CONFIG, tmp_path / "a", should_stop=lambda: next(calls) == 3, checkpoints=checkpoints)
    identity = training_identity(CONFIG, rows)
    state = load_checkpoint(checkpoints.file, identity)
    assert state is not None
    state.parameters.b_enc[3] = np.nan  # the latent falls silent; the loss alone would not tell
    save_checkpoint(checkpoints.file, state, identity)
    with pytest.raises(FailedPreconditionError, match="lower learning_rate"):
        train_sae(rows, CONFIG, tmp_path / "b", checkpoints=checkpoints, execution=Execution(backend))
