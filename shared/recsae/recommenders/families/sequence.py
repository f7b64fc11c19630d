"""Families of next-item networks: how any of them is trained, left untrained and exported.

Not here: the networks (`sasrec`, `gru4rec`, `comirec`) and the training loop (`recsae.recommenders.training`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from recsae.datasets.schema import Dataset
from recsae.datasets.splits import Split
from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.description import BundleDescription
from recsae.recommenders.export import DotProduct, Items, Parts, write_bundle
from recsae.recommenders.families.family import Progress
from recsae.recommenders.families.next_item import NextItemNetwork, as_initialised
from recsae.recommenders.training import TrainingConfig, train_network


@dataclass(frozen=True)
class SequenceModel:
    """A next-item network and its validation figures, none when untrained (`family.TrainedFamily`)."""

    network: NextItemNetwork
    metrics: Mapping[str, float] = field(default_factory=dict)

    def export(self, dataset: Dataset, out: Path, name: str, *, user_ids: Sequence[str] = ()) -> ModelBundle:
        """Writes the bundle; these networks know no user, so `user_ids` go nowhere."""
        return export_network(self.network, dataset.items, out, name, self.metrics)


@dataclass(frozen=True)
class SequenceFamily:
    """The family that trains networks of `config` (`family.Family`)."""

    name: str
    config: TrainingConfig[Any]
    reads_users: bool = False

    def train(self, dataset: Dataset, split: Split, *, seed: int, epochs: int, progress: Progress) -> SequenceModel:
        """Trains by `config`, for at most `epochs` where they are not 0."""
        config = replace(self.config, seed=seed, epochs=epochs or self.config.epochs)
        trained = train_network(split, dataset.items.count, config, progress)
        return SequenceModel(trained.model, trained.metrics)

    def untrained(self, dataset: Dataset, split: Split, *, seed: int) -> SequenceModel:
        """The network that training would have started from."""
        return SequenceModel(as_initialised(lambda: self.config.network(dataset.items.count), seed))


def export_network(
    network: NextItemNetwork, items: Items, out: Path, name: str, metrics: Mapping[str, float] | None = None
) -> ModelBundle:
    """Writes the bundle of a network into the folder `out`, checked against torch; still unpublished."""
    network.eval()
    shape, head = network.shape, network.head
    description = BundleDescription(
        name=name,
        family=network.family,
        max_history=shape.max_history,
        n_items=shape.n_items,
        head="dot_product" if isinstance(head, DotProduct) else "opaque",
        hooks=network.hooks,
        metrics=metrics or {},
    )
    return write_bundle(Parts(_Newest(network), head, _EveryPosition(network)), description, items, out)


class _Newest(nn.Module):
    def __init__(self, network: NextItemNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, history: Tensor) -> tuple[Tensor, ...]:
        return self.network.newest_of_every_hook(history)


class _EveryPosition(nn.Module):
    def __init__(self, network: NextItemNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, history: Tensor) -> tuple[Tensor, ...]:
        return self.network.every_hook(history)
