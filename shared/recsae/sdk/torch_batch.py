"""Subjects as tensors on the model's device: what `embed` is called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsae.sdk.model import Batch
from recsae.steering.segments import Attribute


@dataclass(frozen=True)
class TorchBatch:
    """Subjects, one per row.

    `history` int64 [n, max_history], padded at the side `exporter` was told; `lengths`, `user` (index) and, for pairs,
    `candidate` (item index) int64 [n]. `histories` holds the same item indices as numbers, `user_ids` and `attributes`
    what a feature store may be asked for.
    """

    history: Tensor
    lengths: Tensor
    user: Tensor
    candidate: Tensor | None
    histories: tuple[tuple[int, ...], ...]
    user_ids: tuple[str, ...]
    attributes: tuple[Mapping[str, Attribute], ...]

    @classmethod
    def of(cls, batch: Batch, width: int, padding: int, left: bool, device: torch.device) -> TorchBatch:
        """The tensors of a batch."""
        return cls(
            history=torch.from_numpy(batch.padded(width, padding=padding, left=left)).to(device),
            lengths=torch.from_numpy(batch.lengths).to(device),
            user=torch.from_numpy(batch.users).to(device),
            candidate=None if batch.candidates is None else torch.from_numpy(batch.candidates).to(device),
            histories=tuple(tuple(history.tolist()) for history in batch.histories),
            user_ids=batch.user_ids,
            attributes=batch.attributes,
        )

    def category(self, name: str, values: Sequence[Attribute]) -> Tensor:
        """A categorical attribute as int64 [n]: 1 for `values[0]` and so on, 0 for any other value or none."""
        places = {value: place for place, value in enumerate(values, 1)}
        numbers = [places.get(one.get(name, ""), 0) for one in self.attributes]
        return torch.tensor(numbers, dtype=torch.int64, device=self.user.device)

    def number(self, name: str, default: float = 0.0) -> Tensor:
        """A numeric attribute as float32 [n], `default` where it is not known or no number."""
        found = [one.get(name) for one in self.attributes]
        numbers = [float(one) if isinstance(one, int | float) else default for one in found]
        return torch.tensor(numbers, dtype=torch.float32, device=self.user.device)
