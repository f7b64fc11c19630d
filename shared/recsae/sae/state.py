"""The state of a training run: everything that changes from step to step, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsae.sae.model import Parameters
from recsae.sae.optimiser import Adam
from recsae.sae.step import Step


@dataclass
class TrainingState:
    """`idle_rows` int64 [w]: rows since each latent last fired. `step` counts steps done, from 0."""

    parameters: Parameters
    adam: Adam
    idle_rows: Tensor
    step: int = 0

    @classmethod
    def start(cls, parameters: Parameters) -> TrainingState:
        """Before the first step."""
        width = len(parameters.b_enc)
        return cls(parameters, Adam.for_parameters(parameters), torch.zeros(width, dtype=torch.int64))

    def dead(self, dead_after: int) -> Tensor:
        """Bool [w]: latents that have not fired for that many rows."""
        return self.idle_rows >= dead_after

    def count(self, step: Step) -> None:
        """Notes that a step was taken, and which latents fired in it."""
        self.idle_rows.add_(step.terms.rows).masked_fill_(step.firings > 0, 0)
        self.step += 1

    def to(self, device: torch.device) -> TrainingState:
        """The same on another device; itself when it is there already."""
        adam = Adam(self.adam.first.to(device), self.adam.second.to(device), self.adam.steps)
        return TrainingState(self.parameters.to(device), adam, self.idle_rows.to(device), self.step)
