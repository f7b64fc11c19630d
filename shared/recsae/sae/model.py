"""The parameters of a TopK SAE as torch tensors, how they start, and the forward pass. On normalised activations.

    z = TopK(ReLU(W_enc (x - b_dec) + b_enc)),   x_hat = z W_dec + b_dec                 (docs/method.md, section 2)

Not here: the loss and its gradients (`loss`), the optimiser, the data.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from recsae.sae.config import SaeConfig
from recsae.sae.weights import SaeWeights

_GROUP = 8  # measured: 4 and 16 are slower at widths 1,024 to 4,096
_FIT_ROWS = 1_024
_LEAST_LENGTH = 0.05  # should the sample say otherwise, the encoder still hears something
_MEDIAN_STEPS = 100
_MEDIAN_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Parameters:
    """`w_enc`, `w_dec` [w, d], `b_enc` [w], `b_dec` [d]; also the shape of their gradients and Adam moments.

    Latents are rows of both matrices, so that everything about one latent lies together in memory.
    """

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """By name, in a fixed order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, weights: SaeWeights) -> Parameters:
        """Copies of arrays on normalised activations; see `recsae.sae.weights.unfold`."""
        return cls(**{field.name: torch.from_numpy(getattr(weights, field.name).copy()) for field in fields(cls)})

    def zeros_like(self) -> Parameters:
        """Zeros of the same shapes."""
        return Parameters(**{name: torch.zeros_like(tensor) for name, tensor in self.tensors().items()})

    def to(self, device: torch.device) -> Parameters:
        """The same on another device."""
        return Parameters(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def weights(self, mean: NDArray[np.float32]) -> SaeWeights:
        """As arrays, still on normalised activations; see `recsae.sae.weights.fold`."""
        return SaeWeights(**{name: tensor.cpu().numpy().copy() for name, tensor in self.tensors().items()}, mean=mean)


@dataclass(frozen=True)
class Active:
    """The latents kept per row: `indices` int64 [n, slots], `values` float32 [n, slots] >= 0, in no order.

    Only those with a value > 0 fire.
    """

    indices: Tensor
    values: Tensor


def initial_parameters(config: SaeConfig, sample: Tensor) -> Parameters:
    """Random unit decoder rows, W_enc = W_dec^T, b_enc = 0, b_dec = geometric median of `sample` [n, d].

    With `config.fitted_start` W_enc is shortened so that the first reconstruction of the sample is best.
    """
    generator = torch.Generator().manual_seed(config.seed)
    rows = torch.randn(config.width, config.d, generator=generator)
    w_dec = rows / rows.norm(dim=1, keepdim=True)
    tied = Parameters(w_enc=w_dec.clone(), b_enc=torch.zeros(config.width), w_dec=w_dec, b_dec=geometric_median(sample))
    return replace(tied, w_enc=w_dec * _fitted_length(tied, config, sample)) if config.fitted_start else tied


def _fitted_length(tied: Parameters, config: SaeConfig, sample: Tensor) -> Tensor:
    """The factor on W_enc that brings the first outputs nearest to the sample, by least squares."""
    centred = sample[:: max(1, len(sample) // _FIT_ROWS)] - tied.b_dec
    output = decode(keep_largest(preactivations(tied, centred), config.k), tied.w_dec)
    length = (centred * output).sum() / output.square().sum().clamp(min=torch.finfo(output.dtype).tiny)
    return length.clamp(_LEAST_LENGTH, 1.0)


def geometric_median(rows: Tensor) -> Tensor:
    """The point [d] with the least sum of distances to `rows` [n, d], by Weiszfeld's iteration from the mean."""
    points = rows.double()
    median = points.mean(dim=0)
    for _ in range(_MEDIAN_STEPS):
        closeness = 1.0 / (points - median).norm(dim=1).clamp(min=1e-12)
        moved = (closeness[:, None] * points).sum(dim=0) / closeness.sum()
        step = (moved - median).norm()
        median = moved
        if step <= _MEDIAN_TOLERANCE:
            break
    return median.to(rows.dtype)


def preactivations(parameters: Parameters, centred: Tensor, out: Tensor | None = None) -> Tensor:
    """W_enc (x - b_dec) + b_enc for `centred` = x - b_dec [n, d] -> [n, w], into `out` when given."""
    return torch.addmm(parameters.b_enc, centred, parameters.w_enc.T, out=out)


def keep_largest(preactivation: Tensor, slots: int) -> Active:
    """The `slots` largest of every row, ReLU applied: TopK and ReLU commute, and k values are cheaper than w."""
    width = preactivation.shape[1]
    if width % _GROUP == 0 and width >= 2 * _GROUP * slots:
        return _keep_largest_of_groups(preactivation, slots)
    values, indices = preactivation.topk(slots, dim=1, sorted=False)
    return Active(indices, values.relu_())


def _keep_largest_of_groups(preactivation: Tensor, k: int) -> Active:
    """The same set, up to ties: the k largest lie in the k groups whose maxima are largest.

    Topk is the dearest part of a step (2.2 of 5 ms at 512 x 1024, k = 16); maxima of strided groups cost almost
    nothing, and leave it two rows of 128 to search instead of one of 1,024: a quarter to a half is saved.
    """
    n, width = preactivation.shape
    groups = width // _GROUP
    maxima = preactivation.view(n, _GROUP, groups).amax(dim=1)
    best = maxima.topk(k, dim=1, sorted=False).indices
    members = torch.arange(0, width, groups, device=preactivation.device)[:, None]
    candidates = (best[:, None, :] + members).view(n, _GROUP * k)
    values, places = preactivation.gather(1, candidates).topk(k, dim=1, sorted=False)
    return Active(candidates.gather(1, places), values.relu_())


def keep_nominated(parameters: Parameters, centred: Tensor, nominated: Tensor, slots: int) -> Active:
    """The `slots` largest among the latents `nominated` int64 [n, m], whose preactivations are computed exactly."""
    rows = functional.embedding(nominated, parameters.w_enc)
    exact = torch.einsum("nd,nmd->nm", centred, rows) + parameters.b_enc[nominated]
    values, places = exact.topk(slots, dim=1, sorted=False)
    return Active(nominated.gather(1, places), values.relu_())


def drop_beyond_batch(values: Tensor, k: int) -> None:
    """BatchTopK: of the values [n, slots] of a batch the k n largest stay, the others become 0, in place.

    Bussmann et al., "BatchTopK Sparse Autoencoders" (2024), section 3. Here a row keeps at most `slots`.
    """
    kept = k * len(values)
    if 0 < kept < values.numel():
        flat = values.view(-1)
        least = flat.kthvalue(flat.numel() - kept + 1).values
        values.mul_(values >= least)


def decode(active: Active, w_dec: Tensor) -> Tensor:
    """Decoder output z W_dec [n, d], without the bias, gathering only the k rows that fire."""
    return functional.embedding_bag(active.indices, w_dec, per_sample_weights=active.values, mode="sum")
