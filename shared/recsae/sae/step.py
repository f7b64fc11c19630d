"""What one batch gives: its loss, as sums, and the gradient that training follows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from recsae.sae.model import Parameters


@dataclass(frozen=True)
class LossTerms:
    """Sums over a batch, which add up over batches: `rows`, squared error, firings.

    `aux` is AuxK of this batch (0 when nothing is dead), `dead` the latents that had not fired for long before it.
    """

    rows: int
    squared_error: float
    firings: int
    aux: float
    dead: int


@dataclass(frozen=True)
class Step:
    """Loss and gradient of a batch, and int64 [w], in how many of its rows each latent fired."""

    terms: LossTerms
    gradient: Parameters
    firings: Tensor
