"""GRU4Rec as a torch module: a gated recurrent unit over the items a user consumed.

Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks" (ICLR 2016), in the variant of Tan et al.
(DLRS 2016) that libraries offer: item vectors, dropout, GRU, a dense layer back to the size of an item vector, softmax
over all items. A recurrence sees no later item, so padding on the right leaves every real position as it is. Not here:
the training loop and the export.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsae.recommenders.families.next_item import NextItemNetwork, at_newest
from recsae.recommenders.families.sequence import SequenceFamily
from recsae.recommenders.training import TrainingConfig


@dataclass(frozen=True)
class Gru4recShape:
    """Sizes of the network: items 1..n_items, `dim` = d, `hidden` numbers of state in each of `layers`."""

    n_items: int
    max_history: int = 50
    dim: int = 64
    hidden: int = 128
    layers: int = 1
    dropout: float = 0.3


class Gru4rec(NextItemNetwork):
    """Item vectors through a GRU; the activation is what the dense layer makes of its state."""

    family = "gru4rec"
    shape: Gru4recShape

    def __init__(self, shape: Gru4recShape) -> None:
        super().__init__()
        self.shape = shape
        self.items = nn.Embedding(shape.n_items + 1, shape.dim, padding_idx=0)
        self.item_bias = nn.Parameter(torch.zeros(shape.n_items + 1))
        self.dropout = nn.Dropout(shape.dropout)
        self.gru = nn.GRU(shape.dim, shape.hidden, shape.layers, batch_first=True)
        self.dense = nn.Linear(shape.hidden, shape.dim)
        self.apply(_initialise)

    def forward(self, history: Tensor) -> Tensor:
        """Activations [B, L, d] at every position; what stands at padding means nothing."""
        activations: Tensor = self.dense(self._states(history))
        return activations

    def last(self, history: Tensor) -> Tensor:
        """Activations [B, d] at the newest item; the dense layer computes that one position only."""
        activation: Tensor = self.dense(at_newest(self._states(history), history))
        return activation

    def _states(self, history: Tensor) -> Tensor:
        states: Tensor = self.gru(self.dropout(self.items(history)))[0]
        return states


def _initialise(module: nn.Module) -> None:
    """Glorot's scale for item vectors and recurrent weights, zero biases, a zero vector for padding."""
    if isinstance(module, nn.Embedding):
        nn.init.xavier_normal_(module.weight)
        with torch.no_grad():
            module.weight[0].zero_()
    elif isinstance(module, nn.GRU | nn.Linear):
        for name, values in module.named_parameters():
            nn.init.zeros_(values) if name.startswith("bias") else nn.init.xavier_uniform_(values)


@dataclass(frozen=True)
class Gru4recConfig(TrainingConfig[Gru4rec]):
    """How to train a GRU4Rec."""

    dropout: float = 0.3
    epochs: int = 20
    hidden: int = 128
    layers: int = 1

    def network(self, n_items: int) -> Gru4rec:
        """A new network over items 1..n_items."""
        return Gru4rec(Gru4recShape(n_items, self.max_history, self.dim, self.hidden, self.layers, self.dropout))


GRU4REC = SequenceFamily(Gru4rec.family, Gru4recConfig())
