"""What training asks of an engine, and which engine this machine gets.

An engine owns the state of training and takes it one batch further: codes, loss, gradients, Adam, unit decoder rows.
There are two, equal but for rounding: `torch` runs everywhere and on GPUs, `fast` is compiled for this CPU by numba.
Not here: the order of batches, checkpoints, schedules (`training`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError
from recsae.sae.config import SaeConfig
from recsae.sae.execution import Execution
from recsae.sae.ranks import Ranks, device_of
from recsae.sae.state import TrainingState
from recsae.sae.step import Step
from recsae.sae.torch_engine import TorchEngine


class Engine(Protocol):
    """Training of one SAE."""

    state: TrainingState

    def gradient(self, x: NDArray[np.float32]) -> Step:
        """Loss and gradient on normalised activations [n, d]: this process's part of the batch, sums of the whole.

        What is returned may be overwritten by the next call.
        """

    def follow(self, step: Step, learning_rate: float) -> None:
        """Moves the state by what `gradient` gave last; overwrites it."""

    def close(self) -> None:
        """Ends threads."""


def open_engine(state: TrainingState, config: SaeConfig, execution: Execution, ranks: Ranks) -> Engine:
    """The engine that `execution` asks for, in possession of `state`.

    FailedPreconditionError when this machine cannot run it.
    """
    if execution.fast:
        from recsae.sae.fast.engine import FastEngine  # needs numba, which not everybody has, and compiles

        int8 = execution.nomination == "int8"
        return FastEngine(state, config, ranks, int8=int8, threads=execution.threads or torch.get_num_threads())
    if execution.nomination == "int8":
        raise FailedPreconditionError("int8 nomination needs the fast engine; install numba, or choose exact")
    try:
        device = device_of(execution.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch's ways of saying that there is no such device
        raise FailedPreconditionError(
            f"this machine cannot train on device {execution.device!r} ({error}); choose cpu"
        ) from error
    return TorchEngine(state, config, ranks, device=device, bf16=execution.nomination == "bf16")
