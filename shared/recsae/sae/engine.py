"""What training asks of an engine, and which engine this machine gets.

An engine owns the state of training and takes it one batch further: codes, loss, gradients, Adam, unit decoder rows.
There are two, equal but for rounding: `torch` runs everywhere and on GPUs, `fast` is compiled for this CPU by numba.
Not here: the order of batches, checkpoints, schedules (`training`).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.sae.config import SaeConfig
from recsae.sae.ranks import Ranks, device_of
from recsae.sae.state import TrainingState
from recsae.sae.step import Step
from recsae.sae.torch_engine import TorchEngine

Backend = Literal["auto", "torch", "fast"]
Nomination = Literal["exact", "int8", "bf16"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
NOMINATIONS: tuple[Nomination, ...] = get_args(Nomination)


@dataclass(frozen=True)
class Execution:
    """How training runs; what it learns depends on it by rounding alone.

    `backend` "auto" takes the fast engine on a CPU where numba is installed. `nomination` says in which precision
    latents are nominated: "exact" float32, or "int8" (fast engine, CPUs with AVX-512 VNNI) and "bf16" (torch engine),
    after which float32 decides among a quarter more than needed. Parameters, values and gradients are float32 always.
    `device` is torch's name of it; `threads` 0 = every core.
    """

    backend: Backend = "auto"
    nomination: Nomination = "exact"
    device: str = "cpu"
    threads: int = 0

    def __post_init__(self) -> None:
        """InvalidRequestError names the value that cannot be."""
        if self.backend not in BACKENDS:
            raise InvalidRequestError(f"engine {self.backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
        if self.nomination not in NOMINATIONS:
            raise InvalidRequestError(
                f"nomination {self.nomination!r} is unknown; choose one of {', '.join(NOMINATIONS)}"
            )
        if self.backend == "fast" and self.nomination == "bf16":
            raise InvalidRequestError("the fast engine nominates exactly or in int8; for bf16 choose engine torch")
        if self.backend == "fast" and self.device != "cpu":
            raise InvalidRequestError(f"the fast engine runs on the CPU, not on {self.device!r}; choose engine torch")
        if self.threads < 0:
            raise InvalidRequestError(f"threads must be >= 0 (0 = every core), not {self.threads}")

    @property
    def fast(self) -> bool:
        """True when the fast engine is what this asks for."""
        if self.backend == "auto":
            return self.device == "cpu" and self.nomination != "bf16" and importlib.util.find_spec("numba") is not None
        return self.backend == "fast"


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
    if execution.threads:
        torch.set_num_threads(execution.threads)
    if execution.fast:
        from recsae.sae.fast.engine import FastEngine  # needs numba, which not everybody has, and compiles

        int8 = execution.nomination == "int8"
        return FastEngine(state, config, ranks, int8=int8, threads=torch.get_num_threads())
    if execution.nomination == "int8":
        raise FailedPreconditionError("int8 nomination needs the fast engine; install numba, or choose exact")
    bf16 = execution.nomination == "bf16"
    return TorchEngine(state, config, ranks, device=device_of(execution.device), bf16=bf16)
