"""The training loss of a TopK SAE and its gradient, both sparse: only latents that fire are touched.

    L = FVU + alpha AuxK,   FVU  = sum |x - x_hat|^2 / rows           (inputs have mean square norm 1)
                            AuxK = sum |e - e_hat|^2 / sum |e|^2      with e = x - x_hat, a constant here

AuxK (Gao et al., "Scaling and evaluating sparse autoencoders", section A.2) lets the best dead latents of a row
predict what the live ones missed: e itself, not its negative, and without b_dec. The gradient is written out instead of
recorded, because autograd would fill a dense [n, w] gradient; the tests hold it against autograd. Not here: the
optimiser.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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
    active = keep_largest(preactivation, objective.k)
    error = centred - decode(active, parameters.w_dec)
    gradient = parameters.zeros_like()
    # d FVU / d x_hat; x_hat reaches b_dec directly, and through the encoder's input in `_into_encoder_input`.
    towards = error * (-2.0 / objective.rows)
    _add_latent_gradients(gradient, parameters, active, centred, towards)
    gradient.b_dec.add_(towards.sum(dim=0))
    aux = 0.0
    if objective.aux_alpha > 0 and bool(dead.any()):
        aux = _add_aux(gradient, parameters, preactivation, centred, error, dead, objective)
    gradient.b_dec.sub_(gradient.b_enc @ parameters.w_enc)  # centred = x - b_dec feeds every preactivation
    fires = active.values > 0
    fired = torch.zeros(len(parameters.b_enc), dtype=torch.bool)
    fired[active.indices[fires]] = True
    terms = LossTerms(len(x), float(error.square().sum()), int(fires.sum()), aux)
    return Step(terms, gradient, fired)


def _add_latent_gradients(
    gradient: Parameters, parameters: Parameters, active: Active, centred: Tensor, towards: Tensor
) -> None:
    """Adds the gradient of a term whose gradient by the decoder's output is `towards` [n, d]."""
    n, k = active.indices.shape
    rows = active.indices.reshape(-1)
    # Not bmm: products of [k, d] by [d, 1] are so small that it takes two to four times as long.
    by_value = (parameters.w_dec[active.indices] * towards[:, None, :]).sum(dim=2)
    by_value.masked_fill_(active.values <= 0, 0.0)
    gradient.w_dec.index_add_(0, rows, (active.values[:, :, None] * towards[:, None, :]).reshape(n * k, -1))
    gradient.w_enc.index_add_(0, rows, (by_value[:, :, None] * centred[:, None, :]).reshape(n * k, -1))
    gradient.b_enc.index_add_(0, rows, by_value.reshape(-1))


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
    active = Active(latents[chosen.indices], chosen.values)
    total = error.square().sum().clamp(min=torch.finfo(error.dtype).tiny)
    missed = error - decode(active, parameters.w_dec)
    _add_latent_gradients(gradient, parameters, active, centred, missed * (-2.0 * objective.aux_alpha / total))
    return float(missed.square().sum() / total)
