"""Small torch models as other people write them: what the SDK is tried on. They know nothing of RecSAE."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

N_ITEMS, N_USERS, MAX_HISTORY, DIM = 60, 12, 8, 16
ITEM_IDS = tuple(f"i-{item}" for item in range(1, N_ITEMS + 1))
USER_IDS = tuple(f"u-{user}" for user in range(N_USERS))


def seeded(model: nn.Module, seed: int = 0) -> Any:
    """The model in evaluation mode with weights drawn from a seed."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.3)
    return model.eval()


class Sasrec(nn.Module):
    """Causal self-attention over right-padded histories [B, L]; scores of every item and of padding [B, items + 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(N_ITEMS + 1, DIM, padding_idx=0)
        self.positions = nn.Embedding(MAX_HISTORY, DIM)
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(DIM, 2, 32, 0.1, batch_first=True) for _ in range(2)])
        self.norm = nn.LayerNorm(DIM)

    def forward(self, history: Tensor) -> Tensor:
        length = history.shape[1]
        x: Tensor = self.items(history) + self.positions.weight[:length]
        mask = torch.ones(length, length, dtype=torch.bool, device=history.device).triu(1)
        for block in self.blocks:
            x = block(x, src_mask=mask)
        x = self.norm(x)
        newest = (history != 0).sum(1) - 1
        scores: Tensor = x[torch.arange(len(x)), newest] @ self.items.weight.T
        return scores


class Gru(nn.Module):
    """A GRU over right-padded histories that is told their lengths, as RecBole's; its state comes in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(N_ITEMS + 1, DIM, padding_idx=0)
        self.gru = nn.GRU(DIM, DIM, batch_first=True)

    def forward(self, history: Tensor, lengths: Tensor) -> Tensor:
        states, _ = self.gru(self.items(history))
        scores: Tensor = states[torch.arange(len(states)), lengths - 1] @ self.items.weight[1:].T
        return scores


class BackwardGru(nn.Module):
    """Reads left-padded histories from both sides: no position is what its prefix alone would give."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(N_ITEMS + 1, DIM, padding_idx=0)
        self.gru = nn.GRU(DIM, DIM // 2, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(DIM)

    def forward(self, history: Tensor) -> Tensor:
        states: Tensor = self.norm(self.gru(self.items(history))[0])
        return states[:, -1] @ self.items.weight[1:].T


class Matrix(nn.Module):
    """Matrix factorisation: users from 0, items from 0, no padding anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(N_USERS, DIM)
        self.items = nn.Embedding(N_ITEMS, DIM)
        self.bias = nn.Parameter(torch.zeros(N_ITEMS))

    def forward(self, user: Tensor) -> Tensor:
        scores: Tensor = self.users(user) @ self.items.weight.T + self.bias
        return scores


class Tower(nn.Module):
    """A tower over attributes alone: a country and an age."""

    def __init__(self) -> None:
        super().__init__()
        self.country = nn.Embedding(3, DIM)
        self.age = nn.Linear(1, DIM)

    def forward(self, country: Tensor, age: Tensor) -> Tensor:
        found: Tensor = self.country(country) + self.age(age[:, None])
        return found


class Interests(nn.Module):
    """Two interests per user by attention; the best of them scores an item."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(N_ITEMS + 1, DIM, padding_idx=0)
        self.attention = nn.Linear(DIM, 2)
        self.out = nn.Identity()

    def forward(self, history: Tensor) -> Tensor:
        x = self.items(history)
        weights = self.attention(x).masked_fill((history == 0)[:, :, None], -1e9).softmax(1)
        interests: Tensor = self.out(weights.transpose(1, 2) @ x)
        return (interests @ self.items.weight[1:].T).amax(1)


class Ranker(nn.Module):
    """Scores pairs of a history and a candidate; the last hidden layer is where it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(N_ITEMS + 1, DIM, padding_idx=0)
        self.hidden = nn.Sequential(nn.Linear(2 * DIM, DIM), nn.ReLU())
        self.out = nn.Linear(DIM, 1)

    def forward(self, history: Tensor, candidate: Tensor) -> Tensor:
        pair = torch.cat([self.items(history).sum(1), self.items(candidate)], dim=1)
        score: Tensor = self.out(self.hidden(pair))[:, 0]
        return score
