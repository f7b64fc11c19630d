"""The training loss of a TopK SAE and its gradient, both sparse: only latents that fire are touched.

    L = FVU + alpha AuxK,   FVU  = sum |x - x_hat|^2 / rows           (inputs have mean square norm 1)
                            AuxK = sum |e - e_hat|^2 / sum |e|^2      with e = x - x_hat, a constant here

AuxK (Gao et al., "Scaling and evaluating sparse autoencoders", section A.2) lets the best dead latents of a row
predict what the live ones missed: e itself, not its negative, and without b_dec. The gradient is composed by hand,
because autograd would fill a dense [n, w] gradient; the tests hold it against autograd. Not here: the optimiser.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from recsae.sae.model import Active, Parameters, decode, keep_largest, preactivations


@dataclass(frozen=True)
class LossTerms:
    """Sums over a batch, which add up over batches: `rows`, squared error, firings; `aux` is AuxK of this batch."""

    rows: int
    squared_error: float
    firings: int
    aux: float


@dataclass(frozen=True)
class Step:
    """What one batch gives: its loss, the gradient, and bool [w] of the latents that fired."""

    terms: LossTerms
    gradient: Parameters
    fired: Tensor


@dataclass(frozen=True)
class Objective:
    """The constants of the loss.

    `rows` is the batch size that FVU is divided by, so that a short last batch of an epoch weighs what its rows weigh.
    """

    k: int
    aux_k: int
    aux_alpha: float
    rows: int


def loss_and_gradient(
    parameters: Parameters, x: Tensor, dead: Tensor, objective: Objective, scratch: Tensor | None = None
) -> Step:
    """Loss and gradient on normalised activations `x` [n, d]; `dead` bool [w]; `scratch` [n, w] is overwritten."""
    centred = x - parameters.b_dec
    preactivation = preactivations(parameters, centred, scratch)
    live = _Decoded(parameters, keep_largest(preactivation, objective.k))
    error = centred - live.output
    # d FVU / d x_hat; x_hat reaches b_dec directly, and below through the encoder's input.
    towards = error * (-2.0 / objective.rows)
    gradient = live.gradient(centred, towards)
    gradient.b_dec.add_(towards.sum(dim=0))
    aux = 0.0
    if objective.aux_alpha > 0 and bool(dead.any()):
        aux = _add_aux(gradient, parameters, preactivation, centred, error, dead, objective)
    gradient.b_dec.sub_(gradient.b_enc @ parameters.w_enc)  # centred = x - b_dec feeds every preactivation
    fires = live.active.values > 0
    fired = torch.zeros(len(parameters.b_enc), dtype=torch.bool)
    fired[live.active.indices[fires]] = True
    terms = LossTerms(len(x), float(error.square().sum()), int(fires.sum()), aux)
    return Step(terms, gradient, fired)


def _add_aux(
    gradient: Parameters,
    parameters: Parameters,
    preactivation: Tensor,
    centred: Tensor,
    error: Tensor,
    dead: Tensor,
    objective: Objective,
) -> float:
    """Adds alpha times AuxK's gradient and returns AuxK: 1 = the dead predict nothing, 0 = the whole residual."""
    latents = dead.nonzero().squeeze(1)
    chosen = keep_largest(preactivation[:, latents], min(objective.aux_k, len(latents)))
    revived = _Decoded(parameters, Active(latents[chosen.indices], chosen.values))
    total = error.square().sum().clamp(min=torch.finfo(error.dtype).tiny)
    missed = error - revived.output
    added = revived.gradient(centred, missed * (-2.0 * objective.aux_alpha / total))
    for ours, theirs in zip(gradient.tensors().values(), added.tensors().values(), strict=True):
        ours.add_(theirs)
    return float(missed.square().sum() / total)


class _Decoded:
    """z W_dec of some active latents, ready to be differentiated."""

    def __init__(self, parameters: Parameters, active: Active) -> None:
        self._parameters, self.active = parameters, active
        # embedding_bag's own backward by its weights is one fused pass, five times faster than gathering rows again.
        self._values = active.values.detach().requires_grad_()
        self._graph = decode(Active(active.indices, self._values), parameters.w_dec)
        self.output = self._graph.detach()

    def gradient(self, centred: Tensor, towards: Tensor) -> Parameters:
        """Gradient of a term whose gradient by `output` is `towards` [n, d]; none reaches b_dec here."""
        by_value = torch.autograd.grad(self._graph, self._values, towards)[0]
        by_value = by_value.masked_fill(self.active.values <= 0, 0.0)
        firings = _FiringsByLatent(self.active.indices, len(self._parameters.b_enc))
        return Parameters(
            w_enc=firings.weighted_sums(by_value, centred),
            b_enc=torch.zeros_like(self._parameters.b_enc).index_add_(
                0, self.active.indices.reshape(-1), by_value.reshape(-1)
            ),
            w_dec=firings.weighted_sums(self.active.values, towards),
            b_dec=torch.zeros_like(self._parameters.b_dec),
        )


class _FiringsByLatent:
    """The transpose of `indices` [n, k]: for each latent the batch rows it fires in. One sort serves both matrices."""

    def __init__(self, indices: Tensor, width: int) -> None:
        flat = indices.reshape(-1)
        self._order = torch.argsort(flat, stable=True)
        self._rows = self._order // indices.shape[1]
        self._starts = torch.bincount(flat, minlength=width).cumsum(0).roll(1)
        self._starts[0] = 0

    def weighted_sums(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Per latent the sum of `rows` [n, d] where it fires, times its `weights` [n, k] there: [w, d]."""
        ordered = weights.reshape(-1)[self._order]
        return functional.embedding_bag(self._rows, rows, self._starts, per_sample_weights=ordered, mode="sum")
