"""dictionary-learning 0.1.0: `TopKTrainer.update` on its `AutoEncoderTopK`, as `trainSAE` calls it.

Its defaults stay: dense decode, AuxK 1/32 after 10 million silent rows, gradient clipping, Adam, running threshold.
Inputs have mean square norm 1 here, which is what its `normalize_activations` makes of them.
"""

from __future__ import annotations

import numpy as np
import torch
from dictionary_learning.trainers.top_k import TopKTrainer
from numpy.typing import NDArray

from benchmarks.contenders.contract import Contender, Floats, Task


def fp32(task: Task) -> Contender:
    """Its default arithmetic."""
    return _DictionaryLearning(task)


class _DictionaryLearning:
    flags = "fp32"

    def __init__(self, task: Task) -> None:
        self._trainer = TopKTrainer(
            steps=task.steps,
            activation_dim=task.d,
            dict_size=task.width,
            k=task.k,
            layer=0,
            lm_name="none",
            lr=task.rate,
            warmup_steps=task.warm_up,
            decay_start=task.warm_up + 1,
            seed=task.seed,
            device="cpu",
        )
        self._step = 0

    def step(self, x: Floats) -> None:
        self._trainer.update(self._step, torch.from_numpy(x))
        self._step += 1

    @torch.no_grad()
    def reconstruct(self, x: Floats) -> Floats:
        x_hat: Floats = self._trainer.ae(torch.from_numpy(x)).numpy()
        return x_hat

    @torch.no_grad()
    def fired(self, x: Floats) -> NDArray[np.bool_]:
        seen: NDArray[np.bool_] = (self._trainer.ae.encode(torch.from_numpy(x)) > 0).any(dim=0).numpy()
        return seen
