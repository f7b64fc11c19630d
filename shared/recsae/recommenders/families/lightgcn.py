"""LightGCN: vectors of users and items, smoothed over the graph of who took what.

He, Deng, Wang, Li, Zhang and Wang, "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation"
(SIGIR 2020). Not here: what is served of it (`user_item_vectors`) and the epochs (`fitting`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
_SCHEDULE = Schedule(epochs=50, learning_rate=2e-2, patience=25)


@dataclass(frozen=True)
class LightGcnConfig:
    """How to train. An epoch takes `steps`, or fewer where that would leave batches smaller than `least_batch`.

    A fixed number of steps, because each of them costs a walk over the whole graph: so an epoch grows with the graph
    and not with its square.
    """

    dim: int = 64
    layers: int = 2
    penalty: float = 5e-4
    steps: int = 64
    least_batch: int = 256
    schedule: Schedule = _SCHEDULE


class LightGcn(nn.Module):
    """Users 0..n_users - 1 and items 1..n_items of `histories`, whose interactions are the edges."""

    def __init__(self, histories: Histories, n_items: int, dim: int, layers: int) -> None:
        super().__init__()
        self.n_users, self.layers = histories.n_users, layers
        self.edges = normalised_adjacency(histories, n_items)
        self.start = nn.Parameter(torch.randn(histories.n_users + n_items, dim) * _INIT_STD)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Final vectors of users [n_users, d] and of items [n_items + 1, d], row 0 zero (equations 7 and 8)."""
        smoothed: Tensor = _Smoothed.apply(self.start, self.edges, self.layers)  # type: ignore[no-untyped-call]
        return smoothed[: self.n_users], functional.pad(smoothed[self.n_users :], (0, 0, 1, 0))

    def starts(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors before smoothing, the only parameters there are, of users [b] and items [b] from 1."""
        return self.start[users], self.start[items + (self.n_users - 1)]


def normalised_adjacency(histories: Histories, n_items: int) -> Tensor:
    """Sparse float32 [n_users + n_items] squared: 1 / sqrt(degree of the user x degree of the item) at each edge."""
    size = histories.n_users + n_items
    pairs = np.unique(histories.users * n_items + histories.items - 1)  # an item taken twice is one edge
    users, items = pairs // n_items, pairs % n_items + histories.n_users
    rows, columns = np.concatenate([users, items]), np.concatenate([items, users])
    degree = np.bincount(rows, minlength=size)
    weights = (1.0 / np.sqrt(degree[rows] * degree[columns])).astype(np.float32)
    where = torch.from_numpy(np.stack([rows, columns]))
    with warnings.catch_warnings():  # torch calls compressed rows new; they are four times faster than pairs of indices
        warnings.simplefilter("ignore")
        return torch.sparse_coo_tensor(where, torch.from_numpy(weights), (size, size)).coalesce().to_sparse_csr()


class _Smoothed(torch.autograd.Function):
    """The mean of a table and of itself passed on along the edges once, twice, ... `layers` times.

    Linear and symmetric, so the gradient goes back the way the values came; torch's own way transposes the graph.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, edges: Tensor, layers: int) -> Tensor:
        ctx.edges, ctx.layers = edges, layers
        return smooth(table, edges, layers)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return smooth(gradient.contiguous(), ctx.edges, ctx.layers), None, None


def smooth(table: Tensor, edges: Tensor, layers: int) -> Tensor:
    """[n, d] -> [n, d]: sum over l = 0..layers of edges^l table, divided by layers + 1."""
    total = passed = table
    for _ in range(layers):
        passed = edges @ passed
        total = total + passed
    return total / (layers + 1)


@dataclass(frozen=True)
class LightGcnFamily:
    """The family (`family.Family`)."""

    name: str = "lightgcn"
    config: LightGcnConfig = LightGcnConfig()
    reads_users: bool = True

    def train(self, dataset: Dataset, split: Split, *, seed: int, epochs: int, progress: Progress) -> UserItemVectors:
        """Minimises the BPR loss of the smoothed vectors over the training interactions (equation 15)."""
        config = self.config
        sampler = NegativeSampler(split.train, dataset.items.count)

        def losses(random: np.random.Generator) -> Iterator[Tensor]:
            batch = max(config.least_batch, -(-len(split.train.items) // config.steps))
            for drawn in triples(split.train, sampler, batch, random):
                indices = (drawn.users, drawn.positives, drawn.negatives)
                user, positive, negative = (torch.from_numpy(one) for one in indices)
                users, items = model.vectors()
                start, taken = model.starts(user, positive)
                held = penalty(start, taken, model.starts(user, negative)[1])
                yield bpr_loss(users[user], items[positive], items[negative]) + config.penalty * held

        def scores(histories: Histories, chosen: Ints) -> Tensor:
            users, items = model.vectors()
            return users[torch.from_numpy(chosen)] @ items.T

        with seeded(seed):
            model = self._network(dataset, split)
            fitted = fit(model, losses, scores, split, config.schedule.asked(seed, epochs), progress)
        return self._vectors(model, split, fitted.metrics)

    def untrained(self, dataset: Dataset, split: Split, *, seed: int) -> UserItemVectors:
        """The smoothed vectors that training would have started from."""
        with seeded(seed):
            return self._vectors(self._network(dataset, split), split, {})

    def _network(self, dataset: Dataset, split: Split) -> LightGcn:
        return LightGcn(split.train, dataset.items.count, self.config.dim, self.config.layers)

    def _vectors(self, model: LightGcn, split: Split, metrics: dict[str, float]) -> UserItemVectors:
        users, items = model.vectors()
        return UserItemVectors.of(self.name, users, items, torch.zeros(len(items)), split, metrics)


LIGHTGCN = LightGcnFamily()
