"""The torch engine: one step of training with torch's own operations, on any device it knows."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from recsae.sae.config import SaeConfig
from recsae.sae.loss import loss_and_gradient
from recsae.sae.ranks import Ranks
from recsae.sae.state import TrainingState
from recsae.sae.step import Step


class TorchEngine:
    """See `recsae.sae.engine.Engine`. Changes the tensors of `state` in place."""

    def __init__(
        self, state: TrainingState, config: SaeConfig, ranks: Ranks, *, device: torch.device, bf16: bool
    ) -> None:
        """`bf16` nominates latents in bfloat16."""
        self.state = state.to(device)
        self._config, self._ranks, self._device = config, ranks, device
        kind = torch.bfloat16 if bf16 else torch.float32
        self._scratch = torch.empty(config.batch_size, config.width, dtype=kind, device=device)

    def close(self) -> None:
        """See `Engine`."""

    def gradient(self, x: NDArray[np.float32]) -> Step:
        """See `Engine`."""
        rows = torch.from_numpy(np.ascontiguousarray(x)).to(self._device)
        dead, scratch = self.state.dead(self._config.dead_after), self._scratch[: len(rows)]
        return loss_and_gradient(self.state.parameters, rows, dead, self._config, self._ranks, scratch)

    def follow(self, step: Step, learning_rate: float) -> None:
        """See `Engine`."""
        self.state.adam.step(self.state.parameters, step.gradient, learning_rate)
        self.state.count(step)
