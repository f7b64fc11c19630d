"""What a thread or task is doing with a model while it runs: steering a request, or reading activations.

Kept in a context variable per tap, so that requests served at the same time never see each other's. Code that moves a
forward to another thread has to take its context along (`asyncio.to_thread` does, `run_in_executor` does not).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsae.errors import FailedPreconditionError
from recsae.sdk.torch_place import as_indices, newest_by_padding
from recsae.sdk.vocabulary import Indices
from recsae.steering.matching import SteerContext
from recsae.steering.receipts import PolicyRef, Receipt, UnsteeredReason


@dataclass
class Forward:
    """The forward under way: what the model was called with, and the lengths of the histories if they were told."""

    lengths: Any = None
    left: bool = False
    arguments: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None

    def newest(self, tensor: Tensor, padding: int) -> Indices:
        """The newest position of each history for a tensor [batch, length, d], int64 [batch].

        By the lengths told; else by the model's own integer argument [batch, length], where padding ends.
        FailedPreconditionError when there is neither.
        """
        found = self._by_lengths(tensor)
        if found is None:
            found = self._by_arguments(tensor, padding)
        if found is None:
            batch, length = tensor.shape[:2]
            raise FailedPreconditionError(
                f"nothing says where {batch} histories end in {length} positions: the model was not called with "
                f"integers [{batch}, {length}]; give `lengths=`, or attach with an int or a callable as row"
            )
        return found

    def _by_lengths(self, tensor: Tensor) -> Indices | None:
        if self.lengths is None:
            return None
        if self.left:
            return np.full(tensor.shape[0], tensor.shape[1] - 1, dtype=np.int64)
        return as_indices(self.lengths) - 1

    def _by_arguments(self, tensor: Tensor, padding: int) -> Indices | None:
        for value in self._given():
            if isinstance(value, Tensor) and value.shape == tensor.shape[:2] and not _is_float(value):
                return newest_by_padding(value, padding)
        return None

    def _given(self) -> Iterator[Any]:
        if self.arguments is None:
            return
        positional, named = self.arguments
        for value in (*positional, *named.values()):
            yield value
            if isinstance(value, Mapping):
                yield from value.values()


def _is_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.dtype is torch.bool


@dataclass
class Steering(Forward):
    """What steering did to the forwards inside a `with tap.steering(...)` block; of several the last one's receipts.

    A context of `receipts` is a row's, or the one user's whose rows all of them are (`shared`).
    """

    contexts: Sequence[SteerContext] = ()
    shared: bool = False
    receipts: tuple[Receipt, ...] = ()
    error: Exception | None = None
    """What went wrong, if something did; the model answered unsteered."""
    forwards: int = 0
    """How often the place was reached."""

    @property
    def receipt(self) -> Receipt:
        """The receipt of a single subject: of several rows one that was steered, else the first."""
        steered = [one for one in self.receipts if one.reason is UnsteeredReason.STEERED]
        return (steered or list(self.receipts) or [Receipt(UnsteeredReason.ERROR)])[0]

    @property
    def reason(self) -> UnsteeredReason:
        """Why nothing was steered, or STEERED."""
        return self.receipt.reason

    @property
    def applied(self) -> tuple[PolicyRef, ...]:
        """Policies applied, in order."""
        return self.receipt.applied

    def close(self, place: str) -> None:
        """Says so when the block ended without the place having been reached."""
        if not self.forwards and self.error is None:
            self.error = FailedPreconditionError(
                f"the model did not pass {place} inside this block: in this thread or task it was not run, or it ran "
                "compiled to TorchScript or in DataParallel's threads"
            )


@dataclass
class Capture(Forward):
    """Tensors seen by place, of a model the exporter reads."""

    seen: dict[str, list[Tensor]] = field(default_factory=dict)

    def newest(self, tensor: Tensor, padding: int) -> Indices:
        """As `Forward.newest`, the argument first: whoever embeds may pad in another way than the exporter's batch."""
        found = self._by_arguments(tensor, padding)
        return super().newest(tensor, padding) if found is None else found


Scope = Steering | Capture
