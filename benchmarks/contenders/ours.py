"""RecSAE's own training step, in each of the ways it can run. All train the same SAE on the same loss.

Timed: what `recsae.sae.training` does per batch after reading and normalising it, without progress and checkpoints.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.contenders.contract import DEAD_AFTER, Contender, Floats, Task
from recsae.sae.config import SaeConfig
from recsae.sae.loss import Objective, loss_and_gradient
from recsae.sae.model import Active, decode, initial_parameters, keep_largest, preactivations
from recsae.sae.optimiser import Adam


def torch_only(task: Task) -> Contender:
    """The portable path: torch operators alone, sparse gradients, exact fp32."""
    return _Torch(task)


class _Torch:
    flags = "fp32"

    def __init__(self, task: Task) -> None:
        self._task, self._step = task, 0
        self._config = SaeConfig(task.d, task.width, task.k, batch_size=task.batch, seed=task.seed)
        self._objective = Objective(task.k, self._config.aux_k, self._config.aux_alpha, task.batch)
        self._scratch = torch.empty(task.batch, task.width)
        self._idle_rows = torch.zeros(task.width, dtype=torch.int64)

    def step(self, x: Floats) -> None:
        rows = torch.from_numpy(x)
        if self._step == 0:
            self._parameters = initial_parameters(self._config, rows)
            self._adam = Adam.for_parameters(self._parameters)
        dead = self._idle_rows >= DEAD_AFTER
        result = loss_and_gradient(self._parameters, rows, dead, self._objective, self._scratch[: len(rows)])
        self._adam.step(self._parameters, result.gradient, self._task.rate_at(self._step))
        self._idle_rows.add_(len(rows)).masked_fill_(result.fired, 0)
        self._step += 1

    def reconstruct(self, x: Floats) -> Floats:
        x_hat: Floats = (decode(self._encode(x), self._parameters.w_dec) + self._parameters.b_dec).numpy()
        return x_hat

    def fired(self, x: Floats) -> NDArray[np.bool_]:
        active = self._encode(x)
        seen = np.zeros(self._task.width, np.bool_)
        seen[active.indices[active.values > 0].numpy()] = True
        return seen

    def _encode(self, x: Floats) -> Active:
        centred = torch.from_numpy(x) - self._parameters.b_dec
        return keep_largest(preactivations(self._parameters, centred), self._task.k)
