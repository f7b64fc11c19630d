"""The loss and its written-out gradient, against autograd and against definitions spelled out row by row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recsae.sae.config import SaeConfig
from recsae.sae.loss import loss_and_gradient
from recsae.sae.model import Parameters, geometric_median, initial_parameters, keep_largest
from recsae.sae.optimiser import Adam, remove_radial, to_unit_rows

D, WIDTH, K, AUX_K, ROWS = 12, 40, 4, 5, 30
ALPHA = 1 / 32


def _parameters(seed: int = 0) -> Parameters:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    w_dec = draw(WIDTH, D)
    to_unit_rows(w_dec)
    return Parameters(w_enc=w_dec + 0.2 * draw(WIDTH, D), b_enc=0.1 * draw(WIDTH), w_dec=w_dec, b_dec=0.3 * draw(D))


def _batch(n: int = ROWS) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def _config(alpha: float, rows: int = ROWS) -> SaeConfig:
    return SaeConfig(D, WIDTH, K, aux_k=AUX_K, aux_alpha=alpha, batch_size=rows)


def _dead(parameters: Parameters) -> Tensor:
    """Half of the latents, made silent enough that TopK never keeps them."""
    dead = torch.zeros(WIDTH, dtype=torch.bool)
    dead[::2] = True
    parameters.w_enc[dead] *= 1e-2
    parameters.b_enc[dead] = 0.0
    return dead


def _dense_loss(parameters: Parameters, x: Tensor, dead: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """The definition with dense latents; returns FVU, AuxK and the residual."""
    pre = (x - parameters.b_dec) @ parameters.w_enc.T + parameters.b_enc
    values, indices = pre.relu().topk(K, dim=1)
    latents = torch.zeros_like(pre).scatter(1, indices, values)
    x_hat = latents @ parameters.w_dec + parameters.b_dec
    fvu = (x - x_hat).square().sum() / ROWS
    residual = (x - x_hat).detach()
    if alpha == 0 or not dead.any():
        return fvu, torch.zeros(()), residual
    aux_values, aux_indices = pre.masked_fill(~dead, -torch.inf).topk(min(AUX_K, int(dead.sum())), dim=1)
    aux_latents = torch.zeros_like(pre).scatter(1, aux_indices, aux_values.relu())
    predicted = aux_latents @ parameters.w_dec
    return fvu, (residual - predicted).square().sum() / residual.square().sum(), residual


@pytest.mark.parametrize("n", [ROWS, 7])
@pytest.mark.parametrize("alpha", [0.0, ALPHA, 0.5])
@pytest.mark.parametrize("some_dead", [True, False])
@pytest.mark.parametrize("few_fire", [True, False])
def test_the_gradient_equals_autograd(alpha: float, some_dead: bool, few_fire: bool, n: int) -> None:
    parameters = _parameters()
    dead = _dead(parameters) if some_dead else torch.zeros(WIDTH, dtype=torch.bool)
    if few_fire:  # TopK then keeps latents that ReLU holds at 0
        parameters.b_enc.sub_(torch.where(dead, 0.05, 2.5))
    step = loss_and_gradient(parameters, _batch(n), dead, _config(alpha))
    leaves = Parameters(**{name: tensor.clone().requires_grad_() for name, tensor in parameters.tensors().items()})
    fvu, aux, _ = _dense_loss(leaves, _batch(n), dead, alpha)
    assert (step.terms.firings < n * K) == few_fire
    (fvu + alpha * aux).backward()  # type: ignore[no-untyped-call]
    assert step.terms.squared_error / ROWS == pytest.approx(fvu.item())
    assert step.terms.aux == pytest.approx(aux.item())
    for name, leaf in leaves.tensors().items():
        torch.testing.assert_close(step.gradient.tensors()[name], leaf.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_the_gradient_equals_finite_differences() -> None:
    parameters = _parameters(3)
    dead = _dead(parameters)
    objective = _config(0.0)
    gradient = loss_and_gradient(parameters, _batch(), dead, objective).gradient
    step = 1e-6
    for name, tensor in parameters.tensors().items():
        for at in (0, tensor.numel() // 2, tensor.numel() - 1):
            flat = tensor.view(-1)
            kept = float(flat[at])
            sides = []
            for sign in (1, -1):
                flat[at] = kept + sign * step
                sides.append(loss_and_gradient(parameters, _batch(), dead, objective).terms.squared_error / ROWS)
            flat[at] = kept
            slope = (sides[0] - sides[1]) / (2 * step)
            assert float(gradient.tensors()[name].view(-1)[at]) == pytest.approx(slope, rel=1e-4, abs=1e-6), (name, at)


def test_a_step_along_auxk_lets_dead_latents_predict_the_residual_and_not_its_negative() -> None:
    parameters = _parameters(1)
    dead = _dead(parameters)
    x = _batch()
    _, before, residual = _dense_loss(parameters, x, dead, 1.0)
    with_aux = loss_and_gradient(parameters, x, dead, _config(1.0)).gradient
    without = loss_and_gradient(parameters, x, dead, _config(0.0)).gradient
    for name, tensor in parameters.tensors().items():
        if name != "b_dec":  # b_dec would change the residual itself
            tensor -= 0.5 * (with_aux.tensors()[name] - without.tensors()[name])
    pre = (x - parameters.b_dec) @ parameters.w_enc.T + parameters.b_enc
    values, indices = pre.masked_fill(~dead, -torch.inf).topk(AUX_K, dim=1)
    predicted = torch.zeros_like(pre).scatter(1, indices, values.relu()) @ parameters.w_dec
    assert float((predicted * residual).sum()) > 0
    after = (residual - predicted).square().sum() / residual.square().sum()
    assert float(after) < float(before)


def test_auxk_leaves_live_latents_alone() -> None:
    parameters = _parameters(1)
    dead = _dead(parameters)
    with_aux = loss_and_gradient(parameters, _batch(), dead, _config(1.0)).gradient
    without = loss_and_gradient(parameters, _batch(), dead, _config(0.0)).gradient
    for name in ("w_enc", "b_enc", "w_dec"):
        torch.testing.assert_close(with_aux.tensors()[name][~dead], without.tensors()[name][~dead])
        assert not torch.equal(with_aux.tensors()[name][dead], without.tensors()[name][dead])


def test_only_latents_that_fire_get_a_gradient() -> None:
    parameters = _parameters()
    none_dead = torch.zeros(WIDTH, dtype=torch.bool)
    step = loss_and_gradient(parameters, _batch(3), none_dead, _config(ALPHA, 3))
    assert 0 < int((step.firings > 0).sum()) < WIDTH
    assert (step.gradient.w_dec[step.firings == 0] == 0).all()
    assert (step.gradient.w_enc[step.firings == 0] == 0).all()
    assert step.terms.firings <= 3 * K


def test_scratch_of_an_earlier_batch_changes_nothing() -> None:
    parameters = _parameters()
    dead = _dead(parameters)
    objective = _config(ALPHA)
    scratch = torch.full((ROWS, WIDTH), 1e9, dtype=torch.float64)
    fresh = loss_and_gradient(parameters, _batch(), dead, objective).gradient
    reused = loss_and_gradient(parameters, _batch(), dead, objective, scratch=scratch).gradient
    for name, tensor in fresh.tensors().items():
        assert torch.equal(tensor, reused.tensors()[name])


def test_decoder_rows_have_unit_norm_after_every_step() -> None:
    parameters = _parameters()
    dead = _dead(parameters)
    adam = Adam.for_parameters(parameters)
    for _ in range(20):
        step = loss_and_gradient(parameters, _batch(), dead, _config(ALPHA))
        adam.step(parameters, step.gradient, 0.05)
        torch.testing.assert_close(parameters.w_dec.norm(dim=1), torch.ones(WIDTH, dtype=torch.float64))


def test_the_radial_part_of_the_decoder_gradient_is_removed() -> None:
    parameters = _parameters()
    gradient = torch.randn(WIDTH, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    remove_radial(gradient, parameters.w_dec)
    assert float((gradient * parameters.w_dec).sum(dim=1).abs().max()) < 1e-12


def test_the_optimiser_never_sees_the_radial_part() -> None:
    parameters = _parameters()
    before = parameters.w_dec.clone()
    none_dead = torch.zeros(WIDTH, dtype=torch.bool)
    step = loss_and_gradient(parameters, _batch(), none_dead, _config(ALPHA))
    assert float((step.gradient.w_dec * before).sum(dim=1).abs().max()) > 1e-3
    adam = Adam.for_parameters(parameters)
    adam.step(parameters, step.gradient, 0.05)
    assert float((adam.first.w_dec * before).sum(dim=1).abs().max()) < 1e-12


def test_adam_equals_torchs_where_no_constraint_acts() -> None:
    parameters, reference = _parameters(), _parameters()
    leaf = reference.b_enc.clone().requires_grad_()
    theirs = torch.optim.Adam([leaf], lr=0.01, betas=(0.9, 0.99))
    ours = Adam.for_parameters(parameters)
    for seed in range(5):
        gradient = parameters.zeros_like()
        slope = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        gradient.b_enc.copy_(slope)
        leaf.grad = slope.clone()
        ours.step(parameters, gradient, 0.01)
        theirs.step()
    torch.testing.assert_close(parameters.b_enc, leaf.detach())


def test_the_start_is_tied_and_centred_on_the_geometric_median() -> None:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(500, D, generator=generator)
    sample[:50] += 1_000.0  # outliers move a mean, not a median
    start = initial_parameters(SaeConfig(d=D, width=WIDTH, k=K), sample)
    assert torch.equal(start.w_enc, start.w_dec)
    torch.testing.assert_close(start.w_dec.norm(dim=1), torch.ones(WIDTH))
    assert float(start.b_dec.norm()) < 2.0
    assert float(sample.mean(dim=0).norm()) > 100.0


def test_a_fitted_start_reconstructs_as_well_as_a_tied_encoder_of_any_length() -> None:
    sample = torch.randn(500, D, generator=torch.Generator().manual_seed(1))
    config = SaeConfig(d=D, width=400, k=8, batch_size=500, fitted_start=True)
    start = initial_parameters(config, sample)
    none_dead = torch.zeros(400, dtype=torch.bool)

    def error(length: float) -> float:
        scaled = Parameters(start.w_enc * length, start.b_enc, start.w_dec, start.b_dec)
        return loss_and_gradient(scaled, sample, none_dead, config).terms.squared_error

    assert error(1.0) < min(error(0.8), error(1.25))
    assert error(1.0) < 0.8 * error(1.0 / float(start.w_enc.norm(dim=1).mean()))  # unit length, as usual


def test_the_geometric_median_minimises_the_sum_of_distances() -> None:
    points = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0], [10.0, 10.0]])
    median = geometric_median(points)

    def distance(at: Tensor) -> float:
        return float((points - at).norm(dim=1).sum())

    least = distance(median)
    for shift in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert distance(median + torch.tensor(shift)) >= least - 1e-6


@pytest.mark.parametrize(("width", "k"), [(1024, 16), (256, 16), (512, 1), (24, 5), (1000, 7), (8, 8)])
def test_the_latents_kept_are_the_k_largest(width: int, k: int) -> None:
    rows = torch.randn(200, width, generator=torch.Generator().manual_seed(width))
    rows[:50] -= 2.0  # few are positive
    rows[50:60, ::3] = 1.0  # ties
    kept = keep_largest(rows, k)
    expected = rows.topk(k, dim=1).values.relu()
    assert torch.equal(kept.values.sort(dim=1, descending=True).values, expected)
    assert torch.equal(rows.gather(1, kept.indices).relu(), kept.values)
    assert all(len(set(row)) == k for row in kept.indices.tolist())
