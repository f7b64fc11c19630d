"""RecSAE's own training step on each engine and precision. All train the same SAE on the same loss.

Timed: what `recsae.sae.training` does with a batch once it is read and normalised: `Engine.gradient` and
`Engine.follow`. Left out: progress and checkpoints. The start is `train_sae`'s, fitted, since
the streams are short; the rate follows the common schedule.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.contenders.contract import DEAD_AFTER, Contender, Floats, Task
from recsae.sae.config import SaeConfig
from recsae.sae.engine import Engine, open_engine
from recsae.sae.execution import Execution
from recsae.sae.model import Active, decode, initial_parameters, keep_largest, preactivations
from recsae.sae.ranks import Alone
from recsae.sae.state import TrainingState


def torch_exact(task: Task) -> Contender:
    """The portable engine: torch operations alone, fp32."""
    return _Ours(task, Execution(backend="torch"), "fp32")


def torch_bf16(task: Task) -> Contender:
    """The portable engine; bf16 nominates, fp32 decides."""
    return _Ours(task, Execution(backend="torch", nomination="bf16"), "bf16 nomination, then fp32")


def fast_exact(task: Task) -> Contender:
    """The engine numba compiles, fp32."""
    return _Ours(task, Execution(backend="fast"), "fp32")


def fast_int8(task: Task) -> Contender:
    """The engine numba compiles; int8 nominates (AVX-512 VNNI), fp32 decides."""
    return _Ours(task, Execution(backend="fast", nomination="int8"), "int8 nomination by avx512_vnni, then fp32")


class _Ours:
    def __init__(self, task: Task, execution: Execution, flags: str) -> None:
        self.flags, self._task, self._execution = flags, task, execution
        self._config = SaeConfig(
            task.d, task.width, task.k, batch_size=task.batch, seed=task.seed, dead_after=DEAD_AFTER, fitted_start=True
        )
        self._engine: Engine | None = None

    def step(self, x: Floats) -> None:
        if self._engine is None:
            state = TrainingState.start(initial_parameters(self._config, torch.from_numpy(x)))
            self._engine = open_engine(state, self._config, self._execution, Alone())
        rate = self._task.rate_at(self._engine.state.step)
        self._engine.follow(self._engine.gradient(x), rate)

    def reconstruct(self, x: Floats) -> Floats:
        parameters = self._state.parameters
        x_hat: Floats = (decode(self._encode(x), parameters.w_dec) + parameters.b_dec).numpy()
        return x_hat

    def fired(self, x: Floats) -> NDArray[np.bool_]:
        active = self._encode(x)
        seen = np.zeros(self._task.width, np.bool_)
        seen[active.indices[active.values > 0].numpy()] = True
        return seen

    def __del__(self) -> None:
        """The worker forgets one contender before it makes the next."""
        if self._engine is not None:
            self._engine.close()

    @property
    def _state(self) -> TrainingState:
        assert self._engine is not None
        return self._engine.state

    def _encode(self, x: Floats) -> Active:
        parameters = self._state.parameters
        return keep_largest(preactivations(parameters, torch.from_numpy(x) - parameters.b_dec), self._task.k)
