"""BPR-MF: matrix factorisation that learns to rank an item a user took before one the user did not take.

Rendle, Freudenthaler, Gantner and Schmidt-Thieme, "BPR: Bayesian Personalized Ranking from Implicit Feedback" (UAI
2009), section 4.3.1, with an item bias and negatives drawn evenly. Not here: what is served of it (`user_item_vectors`)
and the epochs (`fitting`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsae.datasets.schema import Dataset, Histories
from recsae.datasets.splits import Split
from recsae.recommenders.families.family import Progress
from recsae.recommenders.families.fitting import Ints, Schedule, fit, seeded
from recsae.recommenders.families.negative_sampling import NegativeSampler, triples
from recsae.recommenders.families.user_item_vectors import UserItemVectors, bpr_loss, penalty

_INIT_STD = 0.1
# Patient: an early epoch that was lucky must not keep the rate from falling, which the later ones live on.
_SCHEDULE = Schedule(epochs=60, learning_rate=5e-3, patience=30)


@dataclass(frozen=True)
class BprConfig:
    """How to train. An epoch takes `steps`, or fewer where that would leave batches smaller than `least_batch`.

    A fixed number of steps, because each of them costs an update of every vector.
    """

    dim: int = 64
    penalty: float = 5e-3
    steps: int = 192
    least_batch: int = 256
    schedule: Schedule = _SCHEDULE


class Bpr(nn.Module):
    """Users 0..n_users - 1, items 1..n_items."""

    def __init__(self, n_users: int, n_items: int, dim: int) -> None:
        super().__init__()
        self.users = nn.Embedding(n_users, dim)
        self.items = nn.Embedding(n_items + 1, dim)
        self.bias = nn.Parameter(torch.zeros(n_items + 1))
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=_INIT_STD)

    def forward(self, users: Tensor) -> Tensor:
        """Scores [b, n_items + 1] of users int64 [b]; column 0 is not a score."""
        return functional.linear(self.users(users), self.items.weight, self.bias)


@dataclass(frozen=True)
class BprFamily:
    """The family (`family.Family`)."""

    name: str = "bpr"
    config: BprConfig = BprConfig()
    reads_users: bool = True

    def train(self, dataset: Dataset, split: Split, *, seed: int, epochs: int, progress: Progress) -> UserItemVectors:
        """Minimises BPR-Opt over the training interactions."""
        config, n_items = self.config, dataset.items.count
        sampler = NegativeSampler(split.train, n_items)

        def losses(random: np.random.Generator) -> Iterator[Tensor]:
            batch = max(config.least_batch, -(-len(split.train.items) // config.steps))
            for drawn in triples(split.train, sampler, batch, random):
                positive, negative = torch.from_numpy(drawn.positives), torch.from_numpy(drawn.negatives)
                rows = model.users(torch.from_numpy(drawn.users)), model.items(positive), model.items(negative)
                margin = model.bias[positive] - model.bias[negative]
                yield bpr_loss(*rows, margin) + config.penalty * penalty(*rows)

        def scores(histories: Histories, users: Ints) -> Tensor:
            found: Tensor = model(torch.from_numpy(users))
            return found

        with seeded(seed):
            model = Bpr(len(dataset.users.ids), n_items, config.dim)
            fitted = fit(model, losses, scores, split, config.schedule.asked(seed, epochs), progress)
        return self._vectors(model, split, fitted.metrics)

    def untrained(self, dataset: Dataset, split: Split, *, seed: int) -> UserItemVectors:
        """The vectors that training would have started from."""
        with seeded(seed):
            return self._vectors(Bpr(len(dataset.users.ids), dataset.items.count, self.config.dim), split, {})

    def _vectors(self, model: Bpr, split: Split, metrics: dict[str, float]) -> UserItemVectors:
        return UserItemVectors.of(self.name, model.users.weight, model.items.weight, model.bias, split, metrics)


BPR = BprFamily()
