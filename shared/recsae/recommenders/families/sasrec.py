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

from recsae.recommenders.description import Hook
from recsae.recommenders.families.next_item import (
    NextItemNetwork,
    as_initialised,
    at_newest,
    initialise,
    newest_position,
)
from recsae.recommenders.families.sequence import SequenceFamily
from recsae.recommenders.training import TrainingConfig

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


class Sasrec(NextItemNetwork):
    """The transformer over item and position vectors."""

    family = "sasrec"
    shape: SasrecShape

    def __init__(self, shape: SasrecShape) -> None:
        super().__init__()
        self.shape = shape
        self.items = nn.Embedding(shape.n_items + 1, shape.dim, padding_idx=0)
        self.positions = nn.Embedding(shape.max_history, shape.dim)
        self.item_bias = nn.Parameter(torch.zeros(shape.n_items + 1))
        self.dropout = nn.Dropout(shape.dropout)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(shape.dim)
        self.apply(initialise)

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """What the last block gives, normed; with two blocks or more also what the first one passes on."""
        sequence = Hook("sequence", "user", self.shape.dim)
        return (sequence, Hook("block_0", "user", self.shape.dim, steerable=False))[: min(2, len(self.blocks))]

    def forward(self, history: Tensor) -> Tensor:
        """Activations [B, L, d] at every position; what stands at padding means nothing."""
        return self.every_hook(history)[0]

    def last(self, history: Tensor) -> Tensor:
        """Activations [B, d] at the newest item."""
        return self.newest_of_every_hook(history)[0]

    def every_hook(self, history: Tensor) -> tuple[Tensor, ...]:
        """Activations [B, L, d] of each hook."""
        passed = [self._embed(history)]
        for block in self.blocks:
            passed.append(block(passed[-1]))
        return (self.norm(passed[-1]), *passed[1 : len(self.hooks)])

    def newest_of_every_hook(self, history: Tensor) -> tuple[Tensor, ...]:
        """Activations [B, d] of each hook; the last block computes the newest position only."""
        passed = [self._embed(history)]
        for block in self.blocks[:-1]:
            passed.append(block(passed[-1]))
        final = self.blocks[-1]
        assert isinstance(final, Block)
        output = self.norm(final.at(passed[-1], newest_position(history))).squeeze(1)
        return (output, *(at_newest(rows, history) for rows in passed[1 : len(self.hooks)]))

    def _embed(self, history: Tensor) -> Tensor:
        scale = math.sqrt(self.shape.dim)
        positions = self.positions.weight[: history.shape[1]]
        result: Tensor = self.dropout(self.items(history) * scale + positions * scale)
        return result


def untrained_sasrec(shape: SasrecShape, seed: int) -> Sasrec:
    """A network as initialised from `seed`: the control that no concept of a trained model should survive on."""
    return as_initialised(lambda: Sasrec(shape), seed)


@dataclass(frozen=True)
class SasrecConfig(TrainingConfig[Sasrec]):
    """How to train a SASRec."""

    blocks: int = 2
    heads: int = 1

    def shape(self, n_items: int) -> SasrecShape:
        """Sizes of the network over items 1..n_items."""
        return SasrecShape(n_items, self.max_history, self.dim, self.blocks, self.heads, self.dropout)

    def network(self, n_items: int) -> Sasrec:
        """A new network over items 1..n_items."""
        return Sasrec(self.shape(n_items))


SASREC = SequenceFamily(Sasrec.family, SasrecConfig())
