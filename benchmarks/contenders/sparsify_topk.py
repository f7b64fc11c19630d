"""eai-sparsify 1.3.3: its `SparseCoder` in the steps of its `Trainer.fit` (loss "fvu"), without the language model.

Its sparse encoder backward and sparse decoder are used; without Triton, that is on a CPU, the decoder falls back to
`embedding_bag`. Its defaults stay: decoder rows normalised before the forward pass, radial gradient removed, AuxK off.
`Trainer.fit` cannot be called without a transformer whose activations it hooks, so its loop body is repeated here, with
each of its two optimisers: torch's Adam with linear warm-up and decay, and its default, schedule-free signum. It wraps
its forward pass in bf16 autocast on CUDA alone; the bf16 form does the same by hand on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from schedulefree import ScheduleFreeWrapper
from sparsify import SparseCoder, SparseCoderConfig
from sparsify.sign_sgd import SignSGD
from transformers import get_linear_schedule_with_warmup

from benchmarks.contenders.contract import Contender, Floats, Task


def adam(task: Task) -> Contender:
    """`optimizer="adam"`."""
    return _Sparsify(task, free=False)


def adam_bf16(task: Task) -> Contender:
    """The same under `torch.autocast("cpu", torch.bfloat16)`."""
    return _Sparsify(task, free=False, autocast=True)


def signum(task: Task) -> Contender:
    """`optimizer="signum"`, its default. It knows no schedule."""
    return _Sparsify(task, free=True)


class _Sparsify:
    def __init__(self, task: Task, free: bool, autocast: bool = False) -> None:
        self.flags = "bf16 autocast" if autocast else "fp32"
        self._autocast = autocast
        torch.manual_seed(task.seed)
        torch.set_float32_matmul_precision("high")  # as Trainer.fit does
        self._sae = SparseCoder(task.d, SparseCoderConfig(num_latents=task.width, k=task.k), "cpu", torch.float32)
        self._idle_rows = torch.zeros(task.width, dtype=torch.long)
        self._width, self._started = task.width, False
        self._advance: Callable[[], object]
        if free:
            self._optimiser = ScheduleFreeWrapper(SignSGD(self._sae.parameters(), lr=task.rate), momentum=0.95)
            self._optimiser.train()
            self._advance = lambda: None
        else:
            self._optimiser = torch.optim.Adam(self._sae.parameters(), lr=task.rate)
            self._advance = get_linear_schedule_with_warmup(self._optimiser, task.warm_up, task.steps).step
        self._free = free

    def step(self, x: Floats) -> None:
        rows = torch.from_numpy(x)
        if not self._started:
            self._sae.b_dec.data = rows.mean(0)
            self._started = True
        self._sae.set_decoder_norm_to_unit_norm()
        total_variance = (rows - rows.mean(0)).pow(2).sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            result = self._sae(x=rows, y=rows, dead_mask=None, total_variance=total_variance)
        fired = torch.zeros(self._width, dtype=torch.bool)
        fired[result.latent_indices.flatten()] = True
        result.fvu.backward()
        self._sae.remove_gradient_parallel_to_decoder_directions()
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._advance()
        self._idle_rows += len(rows)
        self._idle_rows[fired] = 0

    @torch.no_grad()
    def reconstruct(self, x: Floats) -> Floats:
        self._average(True)
        rows = torch.from_numpy(x)
        encoded = self._sae.encode(rows)
        x_hat: Floats = self._sae.decode(encoded.top_acts, encoded.top_indices).numpy()
        self._average(False)
        return x_hat

    @torch.no_grad()
    def fired(self, x: Floats) -> NDArray[np.bool_]:
        self._average(True)
        encoded = self._sae.encode(torch.from_numpy(x))
        seen = np.zeros(self._width, np.bool_)
        seen[encoded.top_indices[encoded.top_acts > 0].numpy()] = True
        self._average(False)
        return seen

    def _average(self, on: bool) -> None:
        """Schedule-free optimisers evaluate at the average of their iterates."""
        if self._free:
            (self._optimiser.eval if on else self._optimiser.train)()
