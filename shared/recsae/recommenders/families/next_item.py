"""What networks have in common that read a history and score the next item by item vectors.

The training loop (`recsae.recommenders.training`), full ranking and export of a family (`sequence`) know a network by
this class alone. Not here: any network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, TypeVar

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsae.recommenders.description import Hook
from recsae.recommenders.export import DotProduct

_INIT_STD = 0.02


class SequenceShape(Protocol):
    """Sizes every such network has: items 1..n_items, the newest `max_history` items of a history, `dim` = d."""

    @property
    def n_items(self) -> int:
        """Items it can recommend."""

    @property
    def max_history(self) -> int:
        """Items of a history it reads."""

    @property
    def dim(self) -> int:
        """Size of an activation and of an item vector."""


class NextItemNetwork(nn.Module):
    """Histories int64 [B, L <= max_history] padded with 0 on the right -> activations; position t knows items 0..t.

    An item's score is activation . item vector + item bias.
    """

    family: ClassVar[str]
    shape: SequenceShape
    items: nn.Embedding
    item_bias: nn.Parameter

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """Where its activations can be read."""
        return (Hook("sequence", "user", self.shape.dim),)

    @property
    def head(self) -> DotProduct | onnx.ModelProto:
        """What its bundle scores with."""
        return DotProduct(self.items.weight.detach().numpy(), self.item_bias.detach().numpy())

    def forward(self, history: Tensor) -> Tensor:
        """Activations [B, L, d] at every position; what stands at padding means nothing."""
        raise NotImplementedError

    def last(self, history: Tensor) -> Tensor:
        """Activations [B, d] at the newest item of each history."""
        return at_newest(self(history), history)

    def scores(self, activation: Tensor, first: int = 0) -> Tensor:
        """[..., d] -> [..., n_items + 1 - first]: of items `first`..n_items; 0 is padding, and not a score."""
        return functional.linear(activation, self.items.weight[first:], self.item_bias[first:])

    def every_hook(self, history: Tensor) -> tuple[Tensor, ...]:
        """Activations of each hook at every position."""
        return (self(history),)

    def newest_of_every_hook(self, history: Tensor) -> tuple[Tensor, ...]:
        """Activations of each hook at the newest item."""
        return (self.last(history),)


Network = TypeVar("Network", bound=NextItemNetwork)


def as_initialised(build: Callable[[], Network], seed: int) -> Network:
    """The network `build` makes with weights drawn from `seed`, in evaluation mode; torch's own seed stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()


def at_newest(rows: Tensor, history: Tensor) -> Tensor:
    """Of `rows` [B, L, ...] the one at the newest item of each history int64 [B, L]: [B, ...]."""
    newest = newest_position(history).reshape(-1, *(1 for _ in rows.shape[1:]))
    return rows.gather(1, newest.expand(-1, 1, *rows.shape[2:])).squeeze(1)


def newest_position(history: Tensor) -> Tensor:
    """int64 [B]: where the newest item of each history stands; 0 in an empty one."""
    return ((history > 0).sum(dim=1) - 1).clamp(min=0)


def initialise(module: nn.Module) -> None:
    """Small normal weights, zero biases, a zero vector for padding; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
