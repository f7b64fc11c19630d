"""Two made models whose subjects have several rows: three interests with a second hook, and pairs that read an age."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.integration.interpreter.conftest import DIM, MAX_HISTORY, N_ITEMS
from torch import Tensor, nn

from recsae.datasets.schema import ItemTable
from recsae.recommenders.bundle import ModelBundle, publish_bundle
from recsae.recommenders.description import AttributeInput, BundleDescription, Hook, Inputs
from recsae.recommenders.export import Items, Parts, write_bundle
from recsae.recommenders.heads import interest_head_graph
from recsae.store.artifacts import ArtifactStore

INTERESTS = 3


class Means(nn.Module):
    """Three interests: means of every third item vector of a history; the second hook has them doubled."""

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items + 1, dim)
        nn.init.normal_(self.items.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        real = (history > 0).to(torch.float32)
        share = torch.tensor([[1.0, 0.2, 0.1], [0.1, 1.0, 0.2], [0.2, 0.1, 1.0]])
        weight = share[:, torch.arange(history.shape[1]) % INTERESTS] * real[:, None, :]
        rows = weight @ self.items(history) / weight.sum(2, keepdim=True)
        return rows, rows * 2


class Pairs(nn.Module):
    """A history's mean and an age, times the candidate."""

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items + 1, dim)
        nn.init.normal_(self.items.weight, generator=torch.Generator().manual_seed(1))

    def forward(self, history: Tensor, age: Tensor, candidate: Tensor) -> tuple[Tensor, Tensor]:
        real = (history > 0).to(torch.float32)[:, :, None]
        mean = (self.items(history) * real).sum(1) / real.sum(1).clamp(min=1)
        return (mean + 0.02 * age[:, None]) * self.items(candidate), 0.01 * age


class PairHead(nn.Module):
    """A bent sum, and what crossed the cut beside it."""

    def forward(self, activation: Tensor, aged: Tensor) -> Tensor:
        return torch.tanh(activation).sum(1) + aged


def publish_made(store: ArtifactStore, folders: pytest.TempPathFactory) -> dict[str, str]:
    """Publishes both; versions by name."""
    numbers = range(1, N_ITEMS + 1)
    items = ItemTable(tuple(f"i-{item}" for item in numbers), tuple(f"Item {item}" for item in numbers), {})
    versions = {}
    for name, make in (("several", interest_bundle), ("pairs", pair_bundle)):
        folder = folders.mktemp(name)
        make(folder, items, dim=DIM, max_history=MAX_HISTORY)
        versions[name] = publish_bundle(store, folder)
    return versions


def interest_bundle(out: Path, items: Items, *, dim: int, max_history: int) -> ModelBundle:
    """A bundle of `Means`: `several`, with hooks `first` and `second`."""
    hooks = tuple(
        Hook(name, "user", dim, name == "first", all_positions=False, rows="interest", interests=INTERESTS)
        for name in ("first", "second")
    )
    n_items = len(items.ids)
    means = Means(n_items, dim)
    vectors = means.items.weight.detach().numpy().copy()
    bias = np.linspace(-0.1, 0.1, n_items + 1, dtype=np.float32)
    description = BundleDescription("several", "made", max_history, n_items, "opaque", hooks)
    return write_bundle(Parts(means, interest_head_graph(vectors, bias, INTERESTS)), description, items, out)


def pair_bundle(out: Path, items: Items, *, dim: int, max_history: int) -> ModelBundle:
    """A bundle of `Pairs`: `pairs`, with one hook `pair`."""
    n_items = len(items.ids)
    hook = Hook("pair", "user", dim, all_positions=False, rows="pair")
    reads = Inputs(attributes=(AttributeInput("age", "number", default=30.0),))
    description = BundleDescription(
        "pairs", "made", max_history, n_items, "opaque", (hook,), passthrough=("aged",), inputs=reads
    )
    return write_bundle(Parts(Pairs(n_items, dim), PairHead()), description, items, out)
