"""The family of DIN networks: how one is trained with sampled negatives, left untrained and exported.

Not here: the network (`din`) and the epochs (`fitting`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recsae.datasets.schema import Dataset, Histories
from recsae.datasets.splits import Split
from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.description import BundleDescription, Hook, Inputs
from recsae.recommenders.export import Parts, write_bundle
from recsae.recommenders.families.din import (
    Din,
    DinShape,
    PairHead,
    PairPositions,
    PairTrunk,
    every_score,
    steps_between,
)
from recsae.recommenders.families.family import Progress
from recsae.recommenders.families.fitting import Ints, Schedule, fit, seeded
from recsae.recommenders.families.negative_sampling import NegativeSampler
from recsae.recommenders.families.user_windows import user_windows
from recsae.recommenders.full_ranking import newest_items

# Every item is scored for every validation user: a thousand of them, every second epoch.
_SCHEDULE = Schedule(epochs=12, learning_rate=3e-3, patience=6, every=2, users_ranked=1_000)
_BIAS = "candidate_bias"


@dataclass(frozen=True)
class DinConfig:
    """How to train: `negatives` items not taken stand beside each item taken. Sizes are those of `din.DinShape`."""

    dim: int = 32
    attention: int = 16
    hidden: tuple[int, int] = (128, 64)
    max_history: int = 20
    dropout: float = 0.1
    negatives: int = 4
    batch: int = 32
    schedule: Schedule = _SCHEDULE

    def network(self, n_items: int) -> Din:
        """A new network over items 1..n_items."""
        shape = DinShape(n_items, self.dim, self.attention, self.hidden, self.max_history, self.dropout)
        return Din(shape)


@dataclass(frozen=True)
class DinModel:
    """A network and its validation figures, none when untrained (`family.TrainedFamily`)."""

    network: Din
    metrics: Mapping[str, float] = field(default_factory=dict)

    def export(self, dataset: Dataset, out: Path, name: str, *, user_ids: Sequence[str] = ()) -> ModelBundle:
        """Writes the bundle; the network knows no user by id, so `user_ids` go nowhere."""
        first, second = self.network.shape.hidden
        description = BundleDescription(
            name=name,
            family=DIN.name,
            max_history=self.network.shape.max_history,
            n_items=dataset.items.count,
            head="opaque",
            hooks=(
                Hook("hidden_2", "user", second, rows="pair"),
                Hook("hidden_1", "user", first, steerable=False, rows="pair"),
            ),
            passthrough=(_BIAS,),
            metrics=self.metrics,
            inputs=Inputs(empty_history=True),
        )
        network = self.network.eval()
        parts = Parts(PairTrunk(network), PairHead(network), PairPositions(network))
        return write_bundle(parts, description, dataset.items, out)


@dataclass(frozen=True)
class DinFamily:
    """The family (`family.Family`)."""

    name: str = "din"
    config: DinConfig = DinConfig()
    reads_users: bool = False

    def train(self, dataset: Dataset, split: Split, *, seed: int, epochs: int, progress: Progress) -> DinModel:
        """Minimises the binary cross-entropy of what a user took next, and of items drawn beside it."""
        config, n_items = self.config, dataset.items.count
        sampler = NegativeSampler(split.train, n_items)

        def losses(random: np.random.Generator) -> Iterator[Tensor]:
            ago = steps_between(config.max_history + 1)
            for users, items in user_windows(split.train, config.max_history, config.batch, random):
                drawn = sampler.draw(np.repeat(users, items.shape[1]), config.negatives, random)
                taken = torch.from_numpy(items)
                candidates = torch.cat([taken[:, :, None], torch.from_numpy(drawn).reshape(*items.shape, -1)], dim=2)
                made = network.pairs(taken, candidates, ago)
                logits = network.scores(made.last, made.bias)[taken > 0]
                labels = torch.zeros_like(logits)
                labels[:, 0] = 1.0
                yield functional.binary_cross_entropy_with_logits(logits, labels)

        def scores(histories: Histories, users: Ints) -> Tensor:
            return every_score(network, torch.from_numpy(newest_items(histories, users, config.max_history)))

        with seeded(seed):
            network = config.network(n_items)
            fitted = fit(network, losses, scores, split, config.schedule.asked(seed, epochs), progress)
        return DinModel(network, fitted.metrics)

    def untrained(self, dataset: Dataset, split: Split, *, seed: int) -> DinModel:
        """The network that training would have started from."""
        with seeded(seed):
            return DinModel(self.config.network(dataset.items.count).eval())


DIN = DinFamily()
