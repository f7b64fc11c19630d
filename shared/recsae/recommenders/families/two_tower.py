"""Two towers: one turns a user's attributes and history into a vector, the other an item's id and columns.

After Covington, Adams and Sargin, "Deep Neural Networks for YouTube Recommendations" (RecSys 2016), section 3: the mean
of the items in a history beside features of the user, softmax over the catalogue. A history's items are seen through
the item tower. Not here: which attributes and columns (`attributes`) and the epochs (`fitting`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsae.datasets.schema import Dataset, Histories
from recsae.datasets.splits import Split
from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.description import AttributeInput, BundleDescription, Hook, Inputs
from recsae.recommenders.export import DotProduct, Parts, write_bundle
from recsae.recommenders.families.attributes import ItemColumns, UserAttributes, attribute_inputs, attributes_of
from recsae.recommenders.families.family import Progress
from recsae.recommenders.families.fitting import Ints, Schedule, fit, seeded
from recsae.recommenders.families.user_windows import user_windows
from recsae.recommenders.full_ranking import newest_items

_INIT_STD = 0.05
_SCHEDULE = Schedule(epochs=20, learning_rate=3e-3, patience=6)
_LOGITS_AT_ONCE = 16_000_000  # 64 MB of float32: bounds memory however large the catalogue is


@dataclass(frozen=True)
class TwoTowerConfig:
    """How to train. A mean forgets order, so a short `max_history` is what keeps it to the recent past."""

    dim: int = 64
    hidden: int = 128
    max_history: int = 20
    dropout: float = 0.2
    batch: int = 64
    schedule: Schedule = _SCHEDULE


class TwoTower(nn.Module):
    """Histories int64 [B, L] padded with 0 on the right and attributes -> vectors that score items by dot product."""

    def __init__(self, dataset: Dataset, inputs: Sequence[AttributeInput], config: TwoTowerConfig) -> None:
        super().__init__()
        dim, hidden = config.dim, config.hidden
        self.ids = nn.Embedding(dataset.items.count + 1, dim, padding_idx=0)
        self.columns = ItemColumns(dataset, dim)
        self.item = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.bias = nn.Parameter(torch.zeros(dataset.items.count + 1))
        self.attributes = UserAttributes(inputs, attributes_of(dataset.users, inputs), dim)
        self.user = nn.Sequential(
            nn.Linear(2 * dim, hidden), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(hidden, dim)
        )
        self.dropout = nn.Dropout(config.dropout)
        with torch.no_grad():
            self.ids.weight[1:].normal_(std=_INIT_STD)

    def item_vectors(self) -> Tensor:
        """The item tower's output [n_items + 1, d], row 0 zero."""
        vectors = self.ids.weight + self.columns()
        return functional.pad((vectors + self.item(vectors))[1:], (0, 0, 1, 0))

    def forward(self, items: Tensor, history: Tensor, *attributes: Tensor) -> Tensor:
        """[B, d] from all of each history, which may be empty; `items` is what `item_vectors` gives."""
        real = (history > 0).to(torch.float32)
        weights = real / real.sum(dim=1, keepdim=True).clamp(min=1)
        # A product, because onnxruntime adds up rows in another order when they are alone in a batch.
        mean = (weights[:, None] @ self._rows(items, history)).squeeze(1)
        return self._tower(mean, self.attributes(*attributes))

    def prefixes(self, items: Tensor, history: Tensor, *attributes: Tensor) -> Tensor:
        """[B, L, d]: row t from items 0..t of each history."""
        seen = (history > 0).to(torch.float32).cumsum(dim=1).clamp(min=1)
        means = self._rows(items, history).cumsum(dim=1) / seen[:, :, None]
        return self._tower(means, self.attributes(*attributes)[..., None, :])

    def _rows(self, items: Tensor, history: Tensor) -> Tensor:
        rows: Tensor = self.dropout(functional.embedding(history, items))
        return rows

    def _tower(self, mean: Tensor, attributes: Tensor) -> Tensor:
        vectors: Tensor = mean + self.user(torch.cat([mean, attributes.expand_as(mean)], dim=-1))
        return vectors


@dataclass(frozen=True)
class TwoTowerModel:
    """A network and its validation figures, none when untrained (`family.TrainedFamily`)."""

    network: TwoTower
    inputs: tuple[AttributeInput, ...]
    max_history: int
    metrics: Mapping[str, float] = field(default_factory=dict)

    def export(self, dataset: Dataset, out: Path, name: str, *, user_ids: Sequence[str] = ()) -> ModelBundle:
        """Writes the bundle; the network knows no user by id, so `user_ids` go nowhere."""
        with torch.no_grad():
            items = self.network.eval().item_vectors()
        description = BundleDescription(
            name=name,
            family=TWO_TOWER.name,
            max_history=self.max_history,
            n_items=dataset.items.count,
            head="dot_product",
            hooks=(Hook("user_tower", "user", items.shape[1]),),
            metrics=self.metrics,
            inputs=Inputs(attributes=self.inputs, empty_history=True),
        )
        parts = Parts(
            _Served(self.network, items, every=False),
            DotProduct(items.numpy(), self.network.bias.detach().numpy()),
            _Served(self.network, items, every=True),
        )
        return write_bundle(parts, description, dataset.items, out)


class _Served(nn.Module):
    """The user tower with the item tower's output as it is, at `every` position or at the newest item."""

    items: Tensor

    def __init__(self, network: TwoTower, items: Tensor, *, every: bool) -> None:
        super().__init__()
        self.network, self.every = network, every
        self.register_buffer("items", items)

    def forward(self, history: Tensor, *attributes: Tensor) -> Tensor:
        tower = self.network.prefixes if self.every else self.network
        vectors: Tensor = tower(self.items, history, *attributes)
        return vectors


@dataclass(frozen=True)
class TwoTowerFamily:
    """The family (`family.Family`)."""

    name: str = "two_tower"
    config: TwoTowerConfig = TwoTowerConfig()
    reads_users: bool = False

    def train(self, dataset: Dataset, split: Split, *, seed: int, epochs: int, progress: Progress) -> TwoTowerModel:
        """Minimises the cross-entropy of every item given those before it, the first of a window given none."""
        config, longest = self.config, self.config.max_history
        inputs = attribute_inputs(dataset.users)
        of_users = attributes_of(dataset.users, inputs)
        batch = max(1, min(config.batch, _LOGITS_AT_ONCE // ((longest + 1) * dataset.items.count)))

        def losses(random: np.random.Generator) -> Iterator[Tensor]:
            for users, taken in user_windows(split.train, longest, batch, random):
                labels = torch.from_numpy(taken)
                history = labels[:, :-1].contiguous()
                items, whose = network.item_vectors(), [one[users] for one in of_users]
                first = network(items, torch.zeros_like(history), *whose)
                rows = torch.cat([first[:, None], network.prefixes(items, history, *whose)], dim=1)[labels > 0]
                logits = functional.linear(rows, items[1:], network.bias[1:])
                yield functional.cross_entropy(logits, labels[labels > 0] - 1)

        def scores(histories: Histories, users: Ints) -> Tensor:
            items, newest = network.item_vectors(), torch.from_numpy(newest_items(histories, users, longest))
            return functional.linear(network(items, newest, *(one[users] for one in of_users)), items, network.bias)

        with seeded(seed):
            network = TwoTower(dataset, inputs, config)
            fitted = fit(network, losses, scores, split, config.schedule.asked(seed, epochs), progress)
        return TwoTowerModel(network, inputs, longest, fitted.metrics)

    def untrained(self, dataset: Dataset, split: Split, *, seed: int) -> TwoTowerModel:
        """The network that training would have started from."""
        inputs = attribute_inputs(dataset.users)
        with seeded(seed):
            return TwoTowerModel(TwoTower(dataset, inputs, self.config).eval(), inputs, self.config.max_history)


TWO_TOWER = TwoTowerFamily()
