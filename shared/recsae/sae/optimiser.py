"""Adam that keeps decoder rows on the unit sphere: only then are the strengths of latents comparable.

Written out because its whole state must be saved and restored bit for bit, and because constructing torch's own costs
1.6 s per process. Not here: the gradient and the schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from recsae.sae.model import Parameters

# A short second memory: a latent fires in few batches, and its step must follow what it does now. Against 0.999 it took
# a fifth off FVU after equal steps; 0.95 kills latents.
BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-8


@dataclass
class Adam:
    """First and second moments, and the number of steps taken."""

    first: Parameters
    second: Parameters
    steps: int = 0

    @classmethod
    def for_parameters(cls, parameters: Parameters) -> Adam:
        """Before the first step."""
        return cls(parameters.zeros_like(), parameters.zeros_like())

    def step(self, parameters: Parameters, gradient: Parameters, learning_rate: float) -> None:
        """Moves `parameters` in place; `gradient` is overwritten. Decoder rows have unit norm afterwards."""
        remove_radial(gradient.w_dec, parameters.w_dec)
        self.steps += 1
        rate, correction = step_sizes(learning_rate, self.steps)
        moments = zip(self.first.tensors().values(), self.second.tensors().values(), strict=True)
        pairs = zip(parameters.tensors().values(), gradient.tensors().values(), strict=True)
        for (values, slope), (first, second) in zip(pairs, moments, strict=True):
            adam_tensor(values, slope, first, second, rate, correction)
        to_unit_rows(parameters.w_dec)


def step_sizes(learning_rate: float, steps: int) -> tuple[float, float]:
    """The rate and the divisor of the second moment's root at step number `steps`, from 1: both moments start at 0."""
    return learning_rate / (1.0 - BETA1**steps), math.sqrt(1.0 - BETA2**steps)


def adam_tensor(values: Tensor, slope: Tensor, first: Tensor, second: Tensor, rate: float, correction: float) -> None:
    """Moves one tensor and its moments, in place."""
    first.lerp_(slope, 1.0 - BETA1)
    second.mul_(BETA2).addcmul_(slope, slope, value=1.0 - BETA2)
    values.addcdiv_(first, second.sqrt().div_(correction).add_(EPSILON), value=-rate)


def remove_radial(gradient: Tensor, rows: Tensor) -> None:
    """Removes from each row of `gradient` its component along the unit row of `rows`: moving there is undone anyway."""
    along = (gradient * rows).sum(dim=1, keepdim=True)
    gradient.addcmul_(along, rows, value=-1.0)


def to_unit_rows(rows: Tensor) -> None:
    """Divides each row by its norm, in place."""
    rows.div_(rows.norm(dim=1, keepdim=True).clamp(min=1e-12))
