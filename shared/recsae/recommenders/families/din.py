"""DIN: a ranker of (history, candidate) pairs that weighs the items of the history by what they say of the candidate.

Zhou et al., "Deep Interest Network for Click-Through Rate Prediction" (KDD 2018), section 4: attention weights are not
normalised, so that a strong interest stays strong. Added are how many steps ago an item was taken, seen by the
attention, and a bias per candidate beside the network, which passes from trunk to head. Not here: the epochs
(`fitting`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

_INIT_STD = 0.05
_PAIRS_AT_ONCE = 16_384  # 20 MB of attention: bounds memory however large the catalogue is


@dataclass(frozen=True)
class DinShape:
    """Sizes of the network over items 1..n_items; `hidden` are those of the first and of the last hidden layer."""

    n_items: int
    dim: int = 32
    attention: int = 16
    hidden: tuple[int, int] = (128, 64)
    max_history: int = 20
    dropout: float = 0.1


@dataclass(frozen=True)
class Pairs:
    """Of pairs [...]: the last hidden layer [..., h2], the one before [..., h1], the candidate's bias [...]."""

    last: Tensor
    before: Tensor
    bias: Tensor


class Din(nn.Module):
    """Items 1..n_items; see `pairs`."""

    def __init__(self, shape: DinShape) -> None:
        super().__init__()
        self.shape = shape
        dim, attention, (first, second) = shape.dim, shape.attention, shape.hidden
        self.items = nn.Embedding(shape.n_items + 1, dim, padding_idx=0)
        self.steps_ago = nn.Embedding(shape.max_history + 2, attention)
        self.seen = nn.Linear(dim, attention)
        self.wanted = nn.Linear(dim, attention, bias=False)
        self.both = nn.Parameter(torch.randn(attention, dim) * dim**-0.5)
        # Above 0 to begin with: an item taken speaks for the candidate until something else is learnt.
        self.weight = nn.Parameter(torch.randn(attention).abs() * attention**-0.5)
        self.first, self.second = nn.Linear(3 * dim, first), nn.Linear(first, second)
        self.score = nn.Linear(second, 1)
        self.bias = nn.Embedding(shape.n_items + 1, 1)
        self.dropout = nn.Dropout(shape.dropout)
        nn.init.zeros_(self.bias.weight)
        nn.init.normal_(self.steps_ago.weight, std=_INIT_STD)
        with torch.no_grad():
            self.items.weight[1:].normal_(std=_INIT_STD)

    def pairs(self, history: Tensor, candidates: Tensor, ago: Tensor) -> Pairs:
        """Pairs [B, T, C] of T cuts of each history int64 [B, J] with C candidates int64 [B, T, C] each.

        `ago` int64 [B or 1, T, J]: how many steps before the candidates an item was taken; 0 = not before, so unseen.
        """
        seen, wanted = self.dropout(self.items(history)), self.dropout(self.items(candidates))
        weights = self._attention(seen, wanted, ago) * ((ago > 0) & (history > 0)[:, None])[:, :, None]
        pooled = (weights.flatten(1, 2) @ seen).reshape(wanted.shape)
        before = functional.relu(self.first(torch.cat([pooled, wanted, pooled * wanted], dim=-1)))
        last = functional.relu(self.second(self.dropout(before)))
        return Pairs(last, before, self.bias(candidates).squeeze(-1))

    def scores(self, last: Tensor, bias: Tensor) -> Tensor:
        """[..., h2] and [...] -> [...]: log-odds that the candidate is what comes next."""
        logits: Tensor = self.score(last).squeeze(-1)
        return logits + bias

    def _attention(self, seen: Tensor, wanted: Tensor, ago: Tensor) -> Tensor:
        """Weights [B, T, C, J]: one hidden layer over an item, the candidate and their product."""
        cuts, count, (size, dim) = *wanted.shape[1:3], self.both.shape
        both = (wanted[..., None, :] * self.both).reshape(-1, cuts * count * size, dim) @ seen.transpose(1, 2)
        hidden = both.reshape(-1, cuts, count, size, seen.shape[1]) + self.wanted(wanted)[..., None]
        hidden = hidden + (self.seen(seen)[:, None] + self.steps_ago(ago)).transpose(2, 3)[:, :, None]
        return self.weight @ functional.relu(hidden)


def steps_between(length: int) -> Tensor:
    """int64 [1, length, length]: at [0, t, j] how many steps position j is before t, 0 where it is not."""
    places = torch.arange(length)
    return (places[:, None] - places).clamp(min=0)[None]


def steps_to_next(history: Tensor) -> Tensor:
    """int64 [B, 1, J]: how many steps each item is before whatever comes next, 0 at padding."""
    length = (history > 0).sum(dim=1, keepdim=True)
    return (length - torch.arange(history.shape[1])).clamp(min=0)[:, None]


def every_score(network: Din, history: Tensor) -> Tensor:
    """Scores [B, n_items + 1] of all items after histories int64 [B, J], a bounded number of pairs at a time."""
    rows, n_items = [], network.shape.n_items
    for part in torch.split(history, max(1, _PAIRS_AT_ONCE // (n_items + 1))):
        columns = []
        for items in torch.split(torch.arange(n_items + 1), _PAIRS_AT_ONCE):
            made = network.pairs(part, items.expand(len(part), 1, -1), steps_to_next(part))
            columns.append(network.scores(made.last, made.bias)[:, 0])
        rows.append(torch.cat(columns, dim=1))
    return torch.cat(rows)


class PairTrunk(nn.Module):
    """One candidate for each history: its last hidden layer, the one before, its bias."""

    def __init__(self, network: Din) -> None:
        super().__init__()
        self.network = network

    def forward(self, history: Tensor, candidate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, J] and [B] -> [B, h2], [B, h1], [B]."""
        made = self.network.pairs(history, candidate[:, None, None], steps_to_next(history))
        return made.last[:, 0, 0], made.before[:, 0, 0], made.bias[:, 0, 0]


class PairPositions(nn.Module):
    """At each position the pair of what came before an item, and the item."""

    def __init__(self, network: Din) -> None:
        super().__init__()
        self.network = network

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """[B, J] -> [B, J, h2], [B, J, h1]."""
        made = self.network.pairs(history, history[:, :, None], steps_between(history.shape[1]))
        return made.last[:, :, 0], made.before[:, :, 0]


class PairHead(nn.Module):
    """Last hidden layer and bias -> score."""

    def __init__(self, network: Din) -> None:
        super().__init__()
        self.network = network

    def forward(self, activation: Tensor, bias: Tensor) -> Tensor:
        """[B, h2] and [B] -> [B]."""
        return self.network.scores(activation, bias)
