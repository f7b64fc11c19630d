"""The textbook TopK step in plain PyTorch: what one writes on the first afternoon, with nothing left out.

Timed: ReLU, `torch.topk`, scatter into a dense code, dense decode, autograd, the radial part of the decoder's gradient
removed, `torch.optim.Adam`, decoder rows to unit norm (Gao et al. 2024, appendix A). The loss is the mean squared error
of a row. The bf16 form runs forward and loss under `torch.autocast("cpu", torch.bfloat16)`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.contenders.contract import Contender, Floats, Task


def fp32(task: Task) -> Contender:
    """fp32 throughout."""
    return _Dense(task, autocast=False)


def bf16(task: Task) -> Contender:
    """bf16 matrix products by autocast; parameters and optimiser stay fp32."""
    return _Dense(task, autocast=True)


class _Dense:
    def __init__(self, task: Task, autocast: bool) -> None:
        self.flags = "bf16 autocast" if autocast else "fp32"
        self._task, self._autocast, self._step = task, autocast, 0
        rows = torch.randn(task.width, task.d, generator=torch.Generator().manual_seed(task.seed))
        self._w_dec = nn.Parameter(rows / rows.norm(dim=1, keepdim=True))
        self._w_enc = nn.Parameter(self._w_dec.detach().T.clone())
        self._b_enc = nn.Parameter(torch.zeros(task.width))
        self._b_dec = nn.Parameter(torch.zeros(task.d))
        self._adam = torch.optim.Adam([self._w_enc, self._b_enc, self._w_dec, self._b_dec], lr=task.rate)

    def step(self, x: Floats) -> None:
        rows = torch.from_numpy(x)
        if self._step == 0:
            self._b_dec.data = rows.mean(dim=0)
        for group in self._adam.param_groups:
            group["lr"] = self._task.rate_at(self._step)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            x_hat = self._encode(rows) @ self._w_dec + self._b_dec
            loss = (x_hat - rows).square().sum(dim=1).mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self._remove_radial()
        self._adam.step()
        self._adam.zero_grad()
        with torch.no_grad():
            self._w_dec.div_(self._w_dec.norm(dim=1, keepdim=True))
        self._step += 1

    @torch.no_grad()
    def reconstruct(self, x: Floats) -> Floats:
        x_hat: Floats = (self._encode(torch.from_numpy(x)) @ self._w_dec + self._b_dec).numpy()
        return x_hat

    @torch.no_grad()
    def fired(self, x: Floats) -> NDArray[np.bool_]:
        seen: NDArray[np.bool_] = (self._encode(torch.from_numpy(x)) > 0).any(dim=0).numpy()
        return seen

    def _encode(self, rows: Tensor) -> Tensor:
        latents = torch.relu((rows - self._b_dec) @ self._w_enc + self._b_enc)
        values, indices = latents.topk(self._task.k, dim=1, sorted=False)
        return torch.zeros_like(latents).scatter(1, indices, values)

    @torch.no_grad()
    def _remove_radial(self) -> None:
        gradient = self._w_dec.grad
        assert gradient is not None
        gradient -= (gradient * self._w_dec).sum(dim=1, keepdim=True) * self._w_dec
