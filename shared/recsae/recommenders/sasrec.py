"""SASRec as a torch module: a causal transformer over the items a user consumed.

Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018), with layer norm before each sub-layer. Inputs
are padded on the right and positions count from the start, so that causality alone keeps padding out of every real
position. Attention is written out: it exports to plain ONNX operators. Not here: training and export.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

_INIT_STD = 0.02
_MASKED = -1e9  # finite: exp() of it is exactly 0, and no NaN can come out of a softmax


@dataclass(frozen=True)
class SasrecShape:
    """Sizes of the network: items 1..n_items, `dim` = d."""

    n_items: int
    max_history: int = 50
    dim: int = 64
    blocks: int = 2
    heads: int = 1
    dropout: float = 0.2


class Attention(nn.Module):
    """Causal self-attention with queries at every position, or at one given position only."""

    causal: Tensor

    def __init__(self, shape: SasrecShape) -> None:
        super().__init__()
        self.heads, self.head_dim = shape.heads, shape.dim // shape.heads
        self.query = nn.Linear(shape.dim, shape.dim)
        self.key_value = nn.Linear(shape.dim, 2 * shape.dim)
        self.out = nn.Linear(shape.dim, shape.dim)
        self.dropout = nn.Dropout(shape.dropout)
        future = torch.full((shape.max_history, shape.max_history), _MASKED).triu(1)
        self.register_buffer("causal", future, persistent=False)

    def forward(self, queries: Tensor, inputs: Tensor, visible: Tensor) -> Tensor:
        """`queries` [B, Q, d] look at `inputs` [B, L, d]; `visible` [Q, L] or [B, 1, Q, L] is 0 where they may."""
        query = self._split(self.query(queries))
        key, value = (self._split(part) for part in self.key_value(inputs).chunk(2, dim=-1))
        logits = query @ key.transpose(-2, -1) / math.sqrt(self.head_dim) + visible
        mixed = self.dropout(logits.softmax(dim=-1)) @ value
        joined = mixed.transpose(1, 2).reshape(-1, queries.shape[1], self.heads * self.head_dim)
        result: Tensor = self.out(joined)
        return result

    def _split(self, rows: Tensor) -> Tensor:
        return rows.reshape(-1, rows.shape[1], self.heads, self.head_dim).transpose(1, 2)


class Block(nn.Module):
    """Attention, then two pointwise layers; each is added to what went in."""

    def __init__(self, shape: SasrecShape) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(shape.dim)
        self.attention = Attention(shape)
        self.before_feed = nn.LayerNorm(shape.dim)
        self.first = nn.Linear(shape.dim, shape.dim)
        self.second = nn.Linear(shape.dim, shape.dim)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """[B, L, d] -> [B, L, d]."""
        normed = self.before_attention(rows)
        visible = self.attention.causal[: rows.shape[1], : rows.shape[1]]
        return self._feed(rows + self.dropout(self.attention(normed, normed, visible)))

    def at(self, rows: Tensor, position: Tensor) -> Tensor:
        """The same at one position int64 [B] of each row only: [B, L, d] -> [B, 1, d]."""
        normed = self.before_attention(rows)
        here = position[:, None, None].expand(-1, 1, rows.shape[-1])
        visible = self.attention.causal[position, : rows.shape[1]][:, None, None, :]
        attended = self.attention(normed.gather(1, here), normed, visible)
        return self._feed(rows.gather(1, here) + self.dropout(attended))

    def _feed(self, rows: Tensor) -> Tensor:
        hidden = functional.relu(self.first(self.before_feed(rows)))
        result: Tensor = rows + self.dropout(self.second(hidden))
        return result


class Sasrec(nn.Module):
    """Histories int64 [B, L <= max_history] -> activations; an item's score is activation . item vector + item bias."""

    def __init__(self, shape: SasrecShape) -> None:
        super().__init__()
        self.shape = shape
        self.items = nn.Embedding(shape.n_items + 1, shape.dim, padding_idx=0)
        self.positions = nn.Embedding(shape.max_history, shape.dim)
        self.item_bias = nn.Parameter(torch.zeros(shape.n_items + 1))
        self.dropout = nn.Dropout(shape.dropout)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(shape.dim)
        self.apply(_initialise)

    def forward(self, history: Tensor) -> Tensor:
        """Activations [B, L, d] at every position; what stands at padding means nothing."""
        rows = self._embed(history)
        for block in self.blocks:
            rows = block(rows)
        result: Tensor = self.norm(rows)
        return result

    def last(self, history: Tensor) -> Tensor:
        """Activations [B, d] at the newest item; the last block computes that one position only."""
        rows = self._embed(history)
        for block in self.blocks[:-1]:
            rows = block(rows)
        newest = ((history > 0).sum(dim=1) - 1).clamp(min=0)
        final = self.blocks[-1]
        assert isinstance(final, Block)
        result: Tensor = self.norm(final.at(rows, newest)).squeeze(1)
        return result

    def scores(self, activation: Tensor) -> Tensor:
        """[..., d] -> [..., n_items + 1]; column 0 (padding) is not a score."""
        return functional.linear(activation, self.items.weight, self.item_bias)

    def _embed(self, history: Tensor) -> Tensor:
        scale = math.sqrt(self.shape.dim)
        positions = self.positions.weight[: history.shape[1]]
        result: Tensor = self.dropout(self.items(history) * scale + positions * scale)
        return result


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_INIT_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()


def untrained_sasrec(shape: SasrecShape, seed: int) -> Sasrec:
    """A network as initialised from `seed`: the control that no concept of a trained model should survive on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Sasrec(shape).eval()
