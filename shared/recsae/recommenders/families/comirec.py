"""ComiRec-SA as a torch module: a history becomes several vectors, one for each of a user's interests.

Cen et al., "Controllable Multi-Interest Framework for Recommendation" (KDD 2020), section 3.2: attention over item
vectors, with one row of weights per interest, A = softmax(W2 tanh(W1 H)). An item is scored by the interest that suits
it best. Position t pools items 0..t, so that every prefix comes out in one pass. Not here: the training loop and the
export.

Three things differ from the paper; figures are of MovieLens-100K. Two pointwise layers follow the pooling: a mean of
item vectors is closest to what was consumed already, which nobody recommends (NDCG@10 0.05 without, 0.07 with them). In
training every item is scored by its own best interest, as in ranking, not by the one that suits the target best
(equation 9), which ranks well only for who knows the target (0.09 and 0.12). And each interest starts from a vector of
its own: without it all interests of a user became nearly one (mean cosine 0.99, now 0.79).
"""

from __future__ import annotations

import math
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
_ORIGIN_STD = 0.3  # an item vector as initialised has 0.16 in each number: interests start apart, not far apart


@dataclass(frozen=True)
class ComirecShape:
    """Sizes of the network: items 1..n_items, `dim` = d, `interests` vectors per user, `hidden` numbers of W1."""

    n_items: int
    max_history: int = 50
    dim: int = 64
    interests: int = 4
    hidden: int = 256
    dropout: float = 0.2


class Refining(nn.Module):
    """Two pointwise layers, added to what went in, and a norm."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.first, self.second = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        hidden = functional.relu(self.first(self.before(rows)))
        result: Tensor = self.after(rows + self.dropout(self.second(hidden)))
        return result


class Comirec(NextItemNetwork):
    """Weighted means of item vectors, refined; activations [..., interests, d]. Positions decide on weights alone."""

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
        self.refining = Refining(shape.dim, shape.dropout)
        future = torch.full((shape.max_history, shape.max_history), _MASKED).triu(1)
        self.register_buffer("causal", future, persistent=False)
        self.apply(initialise)
        self.origins = nn.Parameter(_ORIGIN_STD * torch.randn(shape.interests, shape.dim))
        for layer in (self.first, self.second):  # small weights would keep all interests alike for long
            nn.init.xavier_uniform_(layer.weight)

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
        interests: Tensor = self.refining((weights @ vectors[:, None]).transpose(1, 2) + self.origins)
        return interests

    def last(self, history: Tensor) -> Tensor:
        """Interests [B, interests, d] of whole histories."""
        vectors, logits = self._attend(history)
        padding = (history == 0).to(torch.float32) * _MASKED
        interests: Tensor = self.refining((logits + padding[:, None, :]).softmax(dim=-1) @ vectors + self.origins)
        return interests

    def scores(self, activation: Tensor, first: int = 0) -> Tensor:
        """[..., interests, d] -> [..., n_items + 1 - first]: of the interest that suits each item best."""
        return super().scores(activation, first).max(dim=-2).values

    def _attend(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """Item vectors [B, L, d], and logits [B, interests, L] of how much each counts for each interest."""
        scale = math.sqrt(self.shape.dim)
        vectors = self.dropout(self.items(history) * scale)
        hidden = torch.tanh(self.first(vectors + self.positions.weight[: history.shape[1]] * scale))
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
