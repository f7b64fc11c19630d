"""The fast engine against the torch engine and against definitions: the same codes, losses, gradients and steps."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.sae.batches import ArrayRows, measure_normalisation
from recsae.sae.config import VARIANTS, SaeConfig, Variant
from recsae.sae.engine import Engine, open_engine
from recsae.sae.execution import Execution
from recsae.sae.fast.batch import BatchPass, LatentRows
from recsae.sae.fast.team import Team
from recsae.sae.fast.vectors import INT8
from recsae.sae.loss import loss_and_gradient
from recsae.sae.model import Parameters
from recsae.sae.optimiser import to_unit_rows
from recsae.sae.ranks import Alone
from recsae.sae.state import TrainingState
from recsae.sae.training import start_state
from recsae.sae.weights import fold

needs_int8 = pytest.mark.skipif(not INT8, reason="this CPU has no int8 dot product (AVX-512 VNNI)")
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
NOMINATIONS = ["exact", pytest.param("int8", marks=needs_int8)]
# Nothing fits: lengths beside the vector width, latents beside the panel, batches beside the tile.
SHAPES = [(40, 300, 8), (64, 1024, 16), (7, 50, 3), (130, 200, 5)]


def _activations(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Correlated, away from the origin, with a few rows equal."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 3.0).astype(np.float32)
    x[1] = x[0]
    return x


def _state(config: SaeConfig, seed: int) -> TrainingState:
    """Somewhere in the middle of training: nothing tied, nothing zero, a third of the latents long silent."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    w_dec = draw(config.width, config.d)
    to_unit_rows(w_dec)
    state = TrainingState.start(
        Parameters(w_dec + 0.1 * draw(config.width, config.d), 0.05 * draw(config.width), w_dec, 0.1 * draw(config.d))
    )
    state.idle_rows[::3] = config.dead_after
    return state


def _pair(config: SaeConfig, nomination: str, threads: int = 2) -> tuple[Engine, Engine]:
    """A torch and a fast engine in the same state."""
    fast = Execution("fast", nomination, threads=threads)  # type: ignore[arg-type]
    return (
        open_engine(_state(config, 3), config, Execution("torch", threads=1), Alone()),
        open_engine(_state(config, 3), config, fast, Alone()),
    )


@pytest.mark.parametrize("nomination", NOMINATIONS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("d", "width", "k"), SHAPES)
def test_both_engines_give_the_same_loss_and_gradient(
    d: int, width: int, k: int, variant: Variant, nomination: str
) -> None:
    config = SaeConfig(d, width, k, variant=variant, batch_size=160, aux_k=6, aux_alpha=0.3, dead_after=1_000)
    rows = ArrayRows(_activations(100, d))
    x = measure_normalisation(rows).apply(rows.read(0, 100))
    engines = _pair(config, nomination)
    slow, fast = (engine.gradient(x) for engine in engines)
    assert (slow.terms.rows, slow.terms.firings, slow.terms.dead) == (100, fast.terms.firings, fast.terms.dead)
    assert slow.terms.dead == len(range(0, width, 3))
    assert fast.terms.squared_error == pytest.approx(slow.terms.squared_error, rel=1e-5)
    assert fast.terms.aux == pytest.approx(slow.terms.aux, rel=1e-5)
    assert slow.terms.aux > 0
    assert torch.equal(slow.firings, fast.firings)
    for name, gradient in slow.gradient.tensors().items():
        largest = float(gradient.abs().max())
        torch.testing.assert_close(fast.gradient.tensors()[name], gradient, rtol=1e-4, atol=1e-5 * largest, msg=name)
    for engine in engines:
        engine.close()


@pytest.mark.parametrize("nomination", NOMINATIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_both_engines_take_the_same_steps(variant: Variant, nomination: str) -> None:
    config = SaeConfig(40, 600, 4, variant=variant, batch_size=200, aux_k=20, dead_after=700)
    rows = ArrayRows(_activations(2_000, 40))
    x = measure_normalisation(rows).apply(rows.read(0, 2_000))
    slow, fast = _pair(config, nomination)
    for at in range(0, 2_000, 200):
        for engine in (slow, fast):
            engine.follow(engine.gradient(x[at : at + 200]), 1e-3)
            norms = engine.state.parameters.w_dec.norm(dim=1)
            torch.testing.assert_close(norms, torch.ones(600))
    assert torch.equal(slow.state.idle_rows, fast.state.idle_rows)
    assert slow.state.step == fast.state.step == slow.state.adam.steps == fast.state.adam.steps == 10
    for name, tensor in slow.state.parameters.tensors().items():
        # Where a gradient is 0 but for rounding, Adam makes a whole step (1e-3) of it in either direction.
        apart = (fast.state.parameters.tensors()[name] - tensor).abs()
        assert float((apart > 1e-5).float().mean()) < 0.01, name
    slow.close()
    fast.close()


def _pass(w_enc: np.ndarray, b_enc: np.ndarray, slots: int, *, int8: bool) -> BatchPass:
    batch = BatchPass(Team(1), LatentRows(w_enc, b_enc, w_enc.copy()), slots, np.array([len(w_enc)]), int8=int8)
    batch.pack(0, len(w_enc))
    return batch


@pytest.mark.parametrize("int8", [False, pytest.param(True, marks=needs_int8)])
@pytest.mark.parametrize(("d", "width", "k"), [*SHAPES, (64, 2048, 32), (256, 4096, 64)])
def test_the_latents_kept_are_the_k_largest_positive_ones(d: int, width: int, k: int, int8: bool) -> None:
    rng = np.random.default_rng(d)
    w_enc = rng.normal(size=(width, d)).astype(np.float32)
    w_enc /= np.linalg.norm(w_enc, axis=1, keepdims=True)
    b_enc = (0.1 * rng.normal(size=width)).astype(np.float32)
    x = rng.normal(size=(123, d)).astype(np.float32)
    b_enc_few = np.where(np.arange(width) % 7 == 0, b_enc, b_enc - 100.0).astype(np.float32)
    x[:5] = 0.0  # only the bias speaks
    for bias in (b_enc, b_enc_few):
        batch = _pass(w_enc, bias, k, int8=int8)
        batch.select(x[:, None], np.zeros(d, np.float32))
        scores = torch.from_numpy(x).double() @ torch.from_numpy(w_enc).double().T + torch.from_numpy(bias)
        expected, latents = scores.topk(k, dim=1)
        for row in range(len(x)):
            fires = batch.values[row] > 0
            wanted = set(latents[row][expected[row] > 0].tolist())
            assert set(batch.indices[row][fires].tolist()) == wanted, row
            np.testing.assert_allclose(
                np.sort(batch.values[row])[::-1], expected[row].clamp(min=0).numpy(), rtol=1e-4, atol=1e-5
            )


def test_of_equal_scores_no_more_than_k_are_kept() -> None:
    w_enc = np.ones((64, 4), np.float32)
    batch = _pass(w_enc, np.zeros(64, np.float32), 5, int8=False)
    batch.select(np.ones((3, 1, 4), np.float32), np.zeros(4, np.float32))
    assert (batch.values == 4.0).all()
    assert all(len(set(row)) == 5 for row in batch.indices.tolist())


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_scores_that_are_no_numbers_stay_within_the_codes_of_their_row(value: float) -> None:
    w_enc = np.ones((300, 4), np.float32)
    batch = _pass(w_enc, np.zeros(300, np.float32), 80, int8=False)  # more places than groups
    x = np.ones((9, 1, 4), np.float32)
    x[4] = value
    batch.select(x, np.zeros(4, np.float32))
    assert (np.delete(batch.values, 4, axis=0) == 4.0).all()
    assert all(len(set(row)) == 80 for row in np.delete(batch.indices, 4, axis=0).tolist())


def test_rows_that_fire_nothing_change_nothing() -> None:
    config = SaeConfig(16, 64, 4, batch_size=8)
    _, engine = _pair(config, "exact")
    engine.state.parameters.b_enc.fill_(-1e3)
    engine = open_engine(engine.state, config, Execution("fast"), Alone())
    step = engine.gradient(np.ones((8, 16), np.float32))
    assert step.terms.firings == 0
    assert int(step.firings.sum()) == 0
    for name in ("w_enc", "b_enc", "w_dec"):
        assert not step.gradient.tensors()[name][engine.state.idle_rows == 0].any(), name


@pytest.mark.parametrize("nomination", NOMINATIONS)
def test_the_bits_do_not_depend_on_the_number_of_threads(nomination: str) -> None:
    config = SaeConfig(40, 600, 4, variant="matryoshka", batch_size=200, aux_k=20, dead_after=700)
    rows = ArrayRows(_activations(600, 40))
    x = measure_normalisation(rows).apply(rows.read(0, 600))
    engines = [_pair(config, nomination, threads)[1] for threads in (1, 2, 5)]
    for engine in engines:
        for at in range(0, 600, 200):
            engine.follow(engine.gradient(x[at : at + 200]), 1e-3)
        engine.close()
    first = engines[0].state.parameters.tensors()
    for engine in engines[1:]:
        for name, tensor in engine.state.parameters.tensors().items():
            assert torch.equal(tensor, first[name]), name


def test_bfloat16_nominates_and_float32_decides() -> None:
    config = SaeConfig(64, 1024, 16, batch_size=128, aux_alpha=0.0)
    state = _state(config, 5)
    rows = ArrayRows(_activations(128, 64))
    x = torch.from_numpy(measure_normalisation(rows).apply(rows.read(0, 128)))
    dead = state.dead(config.dead_after)
    exact = loss_and_gradient(state.parameters, x, dead, config)
    scratch = torch.empty(128, 1024, dtype=torch.bfloat16)
    rounded = loss_and_gradient(state.parameters, x, dead, config, scratch=scratch)
    assert rounded.terms.squared_error == pytest.approx(exact.terms.squared_error, rel=1e-5)
    assert int((rounded.firings != exact.firings).sum()) <= 2
    engine = open_engine(_state(config, 5), config, Execution("torch", "bf16"), Alone())
    assert engine.gradient(x.numpy()).terms == rounded.terms


def test_matryoshka_prefixes_pull_their_own_latents_only() -> None:
    config = SaeConfig(40, 320, 8, variant="matryoshka", batch_size=64, aux_alpha=0.0)
    assert config.prefixes == (40, 80, 160, 320)
    x = measure_normalisation(ArrayRows(_activations(64, 40))).apply(_activations(64, 40))
    parameters, none_dead = _state(config, 1).parameters, torch.zeros(320, dtype=torch.bool)
    leaves = Parameters(**{name: tensor.double().requires_grad_() for name, tensor in parameters.tensors().items()})
    centred = torch.from_numpy(x).double() - leaves.b_dec
    values, indices = (centred @ leaves.w_enc.T + leaves.b_enc).relu().topk(8, dim=1)
    latents = torch.zeros(64, 320, dtype=torch.float64).scatter(1, indices, values)
    loss = torch.stack(
        [(centred - latents[:, :prefix] @ leaves.w_dec[:prefix]).square().sum() for prefix in config.prefixes]
    ).mean()
    (loss / 64).backward()  # type: ignore[no-untyped-call]
    step = loss_and_gradient(parameters, torch.from_numpy(x), none_dead, config)
    for name, leaf in leaves.tensors().items():
        assert leaf.grad is not None
        torch.testing.assert_close(step.gradient.tensors()[name], leaf.grad.float(), rtol=1e-3, atol=1e-5, msg=name)


def test_batchtopk_shares_k_per_row_out_over_the_batch() -> None:
    config = SaeConfig(40, 600, 4, variant="batchtopk", batch_size=100, dead_after=10_000)
    x = measure_normalisation(ArrayRows(_activations(100, 40))).apply(_activations(100, 40))
    x /= np.linalg.norm(x, axis=1, keepdims=True)  # else long rows would want more than a row may keep
    _, engine = _pair(config, "exact")
    step = engine.gradient(x)
    assert step.terms.firings == 4 * 100
    assert isinstance(step.firings, torch.Tensor)
    state = _state(config, 3)
    pre = (torch.from_numpy(x) - state.parameters.b_dec) @ state.parameters.w_enc.T + state.parameters.b_enc
    per_row = (pre >= pre.relu().flatten().topk(400).values.min()).sum(dim=1)
    assert int(per_row.min()) < 4 < int(per_row.max())
    assert int(per_row.max()) <= config.slots
    assert torch.equal((pre >= pre.relu().flatten().topk(400).values.min()).sum(dim=0), step.firings)


def test_the_start_can_be_a_trained_sae() -> None:
    x = _activations(500, 16)
    rows = ArrayRows(x)
    normalisation = measure_normalisation(rows)
    config = SaeConfig(16, 64, 4)
    first = start_state(rows, config, normalisation)
    weights = fold(first.parameters.weights(normalisation.mean), normalisation.scale)
    again = start_state(rows, config, normalisation, weights)
    for name, tensor in first.parameters.tensors().items():
        torch.testing.assert_close(again.parameters.tensors()[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    with pytest.raises(InvalidRequestError, match="64 latents"):
        start_state(rows, SaeConfig(16, 32, 4), normalisation, weights)


def test_without_numba_training_runs_on_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba" else found(name))
    assert not Execution().fast
    config = SaeConfig(16, 64, 4, batch_size=8)
    assert open_engine(_state(config, 0), config, Execution(), Alone()).gradient(np.ones((8, 16), np.float32))
    with pytest.raises(FailedPreconditionError, match="install numba"):
        open_engine(_state(config, 0), config, Execution(nomination="int8"), Alone())


@pytest.mark.parametrize("device", ["nowhere", pytest.param("cuda", marks=needs_no_gpu)])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    config = SaeConfig(16, 64, 4, batch_size=8)
    with pytest.raises(FailedPreconditionError, match=device):
        open_engine(_state(config, 0), config, Execution("torch", device=device), Alone())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backend": "jax"}, "jax"),
        ({"nomination": "int4"}, "int4"),
        ({"backend": "fast", "device": "cuda"}, "cuda"),
        ({"backend": "fast", "nomination": "bf16"}, "bf16"),
        ({"threads": -1}, "-1"),
        ({"backend": "torch", "nomination": "int8"}, "torch"),
        ({"device": "cuda", "nomination": "int8"}, "cuda"),
    ],
)
def test_executions_that_cannot_be_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        Execution(**values)  # type: ignore[arg-type]
