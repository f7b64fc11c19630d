"""The training loss of an SAE and its gradient in torch, both sparse: only latents that fire are touched.

    L = FVU + alpha AuxK,   FVU  = sum |x - x_hat|^2 / rows           (inputs have mean square norm 1)
                            AuxK = sum |e - e_hat|^2 / sum |e|^2      with e = x - x_hat, a constant here

Matryoshka takes the mean of FVU over its prefixes (Bussmann et al., "Learning Multi-Level Features with Matryoshka
Sparse Autoencoders", 2025, section 3). AuxK (Gao et al., "Scaling and evaluating sparse autoencoders", section A.2)
lets the best dead latents of a row predict what the live ones missed: e itself, not its negative, and without b_dec.
The gradient is composed by hand, because autograd would fill a dense [n, w] gradient; the tests hold it against
autograd. Not here: the optimiser, and the same in compiled form (`fast`).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from recsae.sae.config import SaeConfig
from recsae.sae.execution import nominated
from recsae.sae.model import (
    Active,
    Parameters,
    decode,
    drop_beyond_batch,
    keep_largest,
    keep_nominated,
    preactivations,
)
from recsae.sae.ranks import Alone, Ranks
from recsae.sae.step import LossTerms, Step

_ALONE = Alone()


def loss_and_gradient(
    parameters: Parameters,
    x: Tensor,
    dead: Tensor,
    config: SaeConfig,
    ranks: Ranks = _ALONE,
    scratch: Tensor | None = None,
) -> Step:
    """Loss and gradient, summed over `ranks`, on this rank's normalised activations `x` [n, d]; `dead` bool [w].

    FVU is divided by `config.batch_size`, so that a short last batch of an epoch weighs what its rows weigh. `scratch`
    [n, w] is overwritten; when it is bfloat16, latents are nominated in bfloat16 and decided in `x`'s own type.
    """
    centred = x - parameters.b_dec
    preactivation, active = _codes(parameters, centred, config, scratch)
    prefixes = config.prefixes
    firings = _FiringsByLatent(active.indices, len(parameters.b_enc))
    groups = [_Decoded(parameters, part, firings) for part in _groups(active, prefixes)]
    errors = _errors(centred, [group.output for group in groups])
    gradient = parameters.zeros_like()
    # d FVU / d output of a group: the group helps its own prefix and all longer ones. The first reaches b_dec directly.
    pull = torch.zeros_like(x)
    for group, error in zip(reversed(groups), reversed(errors), strict=True):
        pull = pull + error * (-2.0 / (config.batch_size * len(prefixes)))
        group.add_gradient(gradient, centred, pull)
    gradient.b_dec.add_(pull.sum(dim=0))
    fires = active.values > 0
    fired = torch.bincount(active.indices[fires], minlength=len(parameters.b_enc))
    sums = torch.stack([x.new_tensor(len(x)), errors[-1].square().sum(), fires.sum().to(x.dtype)]).double()
    ranks.add(sums)
    rows, squared_error, count = sums.tolist()
    aux, some_dead = 0.0, int(dead.sum())
    if config.aux_alpha > 0 and some_dead:
        aux = _add_aux(gradient, parameters, preactivation, centred, errors[-1], dead, squared_error, config, ranks)
    gradient.b_dec.sub_(gradient.b_enc @ parameters.w_enc)  # centred = x - b_dec feeds every preactivation
    ranks.add(*gradient.tensors().values(), fired)
    return Step(LossTerms(int(rows), squared_error, int(count), aux, some_dead), gradient, fired)


def _codes(parameters: Parameters, centred: Tensor, config: SaeConfig, scratch: Tensor | None) -> tuple[Tensor, Active]:
    """Preactivations, for AuxK, and the latents kept."""
    if scratch is None or scratch.dtype == centred.dtype:
        preactivation = preactivations(parameters, centred, scratch)
        active = keep_largest(preactivation, config.slots)
    else:
        kind = scratch.dtype
        rounded = replace(parameters, w_enc=parameters.w_enc.to(kind), b_enc=parameters.b_enc.to(kind))
        preactivation = preactivations(rounded, centred.to(kind), scratch)
        count = min(config.width, nominated(config.slots))
        active = keep_nominated(parameters, centred, keep_largest(preactivation, count).indices, config.slots)
    if config.variant == "batchtopk":
        drop_beyond_batch(active.values, config.k)
    return preactivation, active


def _groups(active: Active, prefixes: tuple[int, ...]) -> list[Active]:
    """The latents kept, cut at the prefixes; what belongs to another group has the value 0."""
    if len(prefixes) == 1:
        return [active]
    bounds = zip((0, *prefixes), prefixes, strict=False)
    return [
        Active(active.indices, active.values * ((active.indices >= low) & (active.indices < high)))
        for low, high in bounds
    ]


def _errors(centred: Tensor, outputs: list[Tensor]) -> list[Tensor]:
    """What each prefix leaves unexplained."""
    errors = [centred - outputs[0]]
    for output in outputs[1:]:
        errors.append(errors[-1] - output)
    return errors


def _add_aux(
    gradient: Parameters,
    parameters: Parameters,
    preactivation: Tensor,
    centred: Tensor,
    error: Tensor,
    dead: Tensor,
    squared_error: float,
    config: SaeConfig,
    ranks: Ranks,
) -> float:
    """Adds alpha times AuxK's gradient and returns AuxK: 1 = the dead predict nothing, 0 = the whole residual."""
    latents = dead.nonzero().squeeze(1)
    some = Parameters(parameters.w_enc[latents], parameters.b_enc[latents], parameters.w_dec[latents], parameters.b_dec)
    exact = preactivation.dtype == centred.dtype
    ours = preactivation[:, latents] if exact else preactivations(some, centred)
    active = keep_largest(ours, min(config.aux_k, len(latents)))
    revived = _Decoded(some, active, _FiringsByLatent(active.indices, len(latents)))
    total = max(squared_error, torch.finfo(error.dtype).tiny)
    missed = error - revived.output
    added = some.zeros_like()
    revived.add_gradient(added, centred, missed * (-2.0 * config.aux_alpha / total))
    gradient.w_enc.index_add_(0, latents, added.w_enc)
    gradient.b_enc.index_add_(0, latents, added.b_enc)
    gradient.w_dec.index_add_(0, latents, added.w_dec)
    left = missed.square().sum().double()
    ranks.add(left)
    return float(left) / total


class _Decoded:
    """z W_dec of some active latents, ready to be differentiated."""

    def __init__(self, parameters: Parameters, active: Active, firings: _FiringsByLatent) -> None:
        self._active, self._firings = active, firings
        # embedding_bag's own backward by its weights is one fused pass, five times faster than gathering rows again.
        self._values = active.values.detach().requires_grad_()
        self._graph = decode(Active(active.indices, self._values), parameters.w_dec)
        self.output = self._graph.detach()

    def add_gradient(self, gradient: Parameters, centred: Tensor, towards: Tensor) -> None:
        """Adds the gradient of a term whose gradient by `output` is `towards` [n, d]; none reaches b_dec here."""
        by_value = torch.autograd.grad(self._graph, self._values, towards)[0]
        by_value = by_value.masked_fill(self._active.values <= 0, 0.0)
        gradient.w_enc.add_(self._firings.weighted_sums(by_value, centred))
        gradient.b_enc.index_add_(0, self._active.indices.reshape(-1), by_value.reshape(-1))
        gradient.w_dec.add_(self._firings.weighted_sums(self._active.values, towards))


class _FiringsByLatent:
    """The transpose of `indices` [n, slots]: for each latent the rows it fires in. One sort serves both matrices."""

    def __init__(self, indices: Tensor, width: int) -> None:
        flat = indices.reshape(-1)
        self._order = torch.argsort(flat, stable=True)
        self._rows = self._order // indices.shape[1]
        self._starts = torch.bincount(flat, minlength=width).cumsum(0).roll(1)
        self._starts[0] = 0

    def weighted_sums(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Per latent the sum of `rows` [n, d] where it fires, times its `weights` [n, slots] there: [w, d]."""
        ordered = weights.reshape(-1)[self._order]
        return functional.embedding_bag(self._rows, rows, self._starts, per_sample_weights=ordered, mode="sum")
