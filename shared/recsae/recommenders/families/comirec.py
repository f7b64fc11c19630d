"""ComiRec-SA as a torch module: a history becomes several vectors, one for each of a user's interests.

Cen et al., "Controllable Multi-Interest Framework for Recommendation" (KDD 2020), section 3.2: attention over item
vectors, with one row of weights per interest, A = softmax(W2 tanh(W1 H)). A target is scored by the interest that suits
it best, in training (equation 9) as in ranking. Position t pools items 0..t, so that every prefix comes out in one
pass. Not here: the training loop and the export.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsae.recommenders.description import Hook
from recsae.recommenders.families.next_item import NextItemNetwork, initialise
from recsae.recommenders.families.sequence import SequenceFamily
from recsae.recommenders.heads import interest_head_graph
from recsae.recommenders.training import TrainingConfig

_MASKED = -1e9  # finite: exp() of it is exactly 0, and no NaN can come out of a softmax


@dataclass(frozen=True)
class ComirecShape:
    """Sizes of the network: items 1..n_items, `dim` = d, `interests` vectors per user, `hidden` numbers of W1."""

    n_items: int
    max_history: int = 50
    dim: int = 64
    interests: int = 4
    hidden: int = 256
    dropout: float = 0.2


class Comirec(NextItemNetwork):
    """Weighted sums of item vectors; positions decide on the weights only. Activations [..., interests, d]."""

    family = "comirec"
    shape: ComirecShape
    causal: Tensor

    def __init__(self, shape: ComirecShape) -> None:
        super().__init__()
        self.shape = shape
        self.items = nn.Embedding(shape.n_items + 1, shape.dim, padding_idx=0)
        self.positions = nn.Embedding(shape.max_history, shape.dim)
        self.item_bias = nn.Parameter(torch.zeros(shape.n_items + 1))
        self.dropout = nn.Dropout(shape.dropout)
        self.first = nn.Linear(shape.dim, shape.hidden)
        self.second = nn.Linear(shape.hidden, shape.interests, bias=False)
        future = torch.full((shape.max_history, shape.max_history), _MASKED).triu(1)
        self.register_buffer("causal", future, persistent=False)
        self.apply(initialise)

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """One row per interest."""
        return (Hook("interests", "user", self.shape.dim, rows="interest", interests=self.shape.interests),)

    @property
    def head(self) -> onnx.ModelProto:
        """The best interest scores."""
        vectors, bias = self.items.weight.detach().numpy(), self.item_bias.detach().numpy()
        return interest_head_graph(vectors, bias, self.shape.interests)

    def forward(self, history: Tensor) -> Tensor:
        """Interests [B, L, interests, d] of every prefix; what stands at padding means nothing."""
        vectors, logits = self._attend(history)
        visible = self.causal[: history.shape[1], : history.shape[1]]
        weights = (logits[:, :, None, :] + visible).softmax(dim=-1)
        return (weights @ vectors[:, None]).transpose(1, 2)

    def last(self, history: Tensor) -> Tensor:
        """Interests [B, interests, d] of whole histories."""
        vectors, logits = self._attend(history)
        padding = (history == 0).to(torch.float32) * _MASKED
        return (logits + padding[:, None, :]).softmax(dim=-1) @ vectors

    def scores(self, activation: Tensor) -> Tensor:
        """[..., interests, d] -> [..., n_items + 1]: of the interest that suits each item best."""
        return functional.linear(activation, self.items.weight, self.item_bias).amax(dim=-2)

    def learning_rows(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Of each target's interests the one that suits it best, [n, d]."""
        wanted = targets > 0
        interests = self(inputs)[wanted]
        with torch.no_grad():
            best = (interests @ self.items(targets[wanted])[:, :, None]).argmax(dim=1)
        rows: Tensor = interests.gather(1, best[:, :, None].expand(-1, 1, interests.shape[-1])).squeeze(1)
        return rows

    def _attend(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """Item vectors [B, L, d], and logits [B, interests, L] of how much each counts for each interest."""
        vectors = self.dropout(self.items(history))
        hidden = torch.tanh(self.first(vectors + self.positions.weight[: history.shape[1]]))
        return vectors, self.second(hidden).transpose(1, 2)


@dataclass(frozen=True)
class ComirecConfig(TrainingConfig[Comirec]):
    """How to train a ComiRec-SA."""

    interests: int = 4
    hidden: int = 256

    def network(self, n_items: int) -> Comirec:
        """A new network over items 1..n_items."""
        shape = ComirecShape(n_items, self.max_history, self.dim, self.interests, self.hidden, self.dropout)
        return Comirec(shape)


COMIREC = SequenceFamily(Comirec.family, ComirecConfig())
