"""Data-parallel training: processes that each take a part of every batch and add up what they find.

Loss, gradients and firings are sums over rows, so after one all-reduce every process takes the very step that a single
one would have taken on the whole batch. (BatchTopK is the exception: k is shared out within each rank's rows.) A
process without rows in a short batch takes part all the same, so nobody waits for ever. gloo on CPUs, nccl on GPUs.
Not here: starting the processes (the worker).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from recsae.errors import FailedPreconditionError, UnavailableError
from recsae.sae.execution import Place


class Ranks(Protocol):
    """The processes that train together."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    def add(self, *tensors: Tensor) -> None:
        """Replaces each tensor by its sum over all ranks; UnavailableError when one of them is gone."""

    def part(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """This rank's rows of a batch [n, d]: contiguous, at most one more than another's, perhaps none."""


@dataclass(frozen=True)
class Alone:
    """One process: the whole batch, nothing to add."""

    rank: int = 0
    size: int = 1

    def add(self, *tensors: Tensor) -> None:
        """See `Ranks`."""

    def part(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Ranks`."""
        return batch


@dataclass(frozen=True)
class ProcessGroup:
    """The ranks of torch's default process group."""

    rank: int
    size: int

    def add(self, *tensors: Tensor) -> None:
        """See `Ranks`."""
        try:
            for tensor in tensors:
                dist.all_reduce(tensor)
        except RuntimeError as error:
            raise UnavailableError(
                f"training lost one of its {self.size} processes ({error}); it goes on from the checkpoint"
            ) from error

    def part(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Ranks`."""
        bounds = len(batch) * np.arange(self.size + 1) // self.size
        return batch[bounds[self.rank] : bounds[self.rank + 1]]


@contextmanager
def join_ranks(device: str, timeout_s: float = 120.0) -> Iterator[Ranks]:
    """The ranks among which the environment gives this process its place (`Place`), or this one alone.

    A rank that waits longer than `timeout_s` for the others gives up, so that no process hangs behind a dead one.
    """
    place = Place.from_environment()
    rank, size, meet = place.rank, place.size, place.meet
    if size == 1:
        yield Alone()
        return
    backend = "nccl" if device.startswith("cuda") else "gloo"
    if backend == "nccl" and size > torch.cuda.device_count():
        raise FailedPreconditionError(
            f"{size} processes need as many GPUs, this machine has {torch.cuda.device_count()}; start fewer"
        )
    wait = timedelta(seconds=timeout_s)
    try:
        dist.init_process_group(backend, init_method=meet, rank=rank, world_size=size, timeout=wait)
    except RuntimeError as error:
        raise UnavailableError(f"the {size} processes of a training did not find each other ({error})") from error
    try:
        yield ProcessGroup(rank, size)
    finally:
        dist.destroy_process_group()


def device_of(device: str) -> torch.device:
    """The device of this rank: "cuda" becomes the GPU of the rank's number."""
    if device == "cuda":
        return torch.device("cuda", Place.from_environment().rank)
    return torch.device(device)
