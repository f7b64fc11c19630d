"""sae-lens 6.54.12: `SAETrainer.step` on a `TopKTrainingSAE`, as its training loop (`SAETrainer.fit`) calls it.

Its defaults stay: dense activations, decoder-norm rescaling, AuxK after 1,000 silent steps, gradient clipping, Adam.
`normalize_activations="expected_average_only_in"` is its own way to scale inputs. Left out: the progress bar, logging,
checkpoints. The bf16 form is its `autocast=True`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

from benchmarks.contenders.contract import Contender, Floats, Task


def fp32(task: Task) -> Contender:
    """Its default arithmetic."""
    return _SaeLens(task, autocast=False)


def bf16(task: Task) -> Contender:
    """Its `autocast` option."""
    return _SaeLens(task, autocast=True)


class _SaeLens:
    def __init__(self, task: Task, autocast: bool) -> None:
        self.flags = "bf16 autocast" if autocast else "fp32"
        torch.manual_seed(task.seed)
        shape = TopKTrainingSAEConfig(
            d_in=task.d, d_sae=task.width, k=task.k, normalize_activations="expected_average_only_in"
        )
        schedule = SAETrainerConfig(
            total_training_samples=task.steps * task.batch,
            train_batch_size_samples=task.batch,
            lr=task.rate,
            lr_end=task.rate / 10,  # read by cosine schedules alone
            lr_warm_up_steps=task.warm_up,
            lr_decay_steps=task.steps - task.warm_up,
            autocast=autocast,
        )
        self._sae = TopKTrainingSAE(shape)
        self._trainer = SAETrainer(cfg=schedule, sae=self._sae, data_provider=iter(()))
        self._d, self._scale = task.d, 0.0

    def step(self, x: Floats) -> None:
        rows = torch.from_numpy(x)
        if not self._scale:
            self._measure_scale(rows)
        self._trainer.maybe_reset_sparsity()
        self._trainer.step(rows)
        self._trainer.n_training_steps += 1

    @torch.no_grad()
    def reconstruct(self, x: Floats) -> Floats:
        x_hat: Floats = (self._sae.decode(self._sae.encode(torch.from_numpy(x) * self._scale)) / self._scale).numpy()
        return x_hat

    @torch.no_grad()
    def fired(self, x: Floats) -> NDArray[np.bool_]:
        seen: NDArray[np.bool_] = (self._sae.encode(torch.from_numpy(x) * self._scale) > 0).any(dim=0).numpy()
        return seen

    def _measure_scale(self, rows: torch.Tensor) -> None:
        def once() -> Iterator[torch.Tensor]:
            yield rows

        self._trainer.activation_scaler.estimate_scaling_factor(self._d, once(), n_batches_for_norm_estimate=1)
        self._scale = float(self._trainer.activation_scaler.scaling_factor or 1.0)
