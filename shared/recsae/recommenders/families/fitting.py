"""Trains a network epoch by epoch and keeps the weights that rank the validation items best.

The kept epoch is the last whose NDCG@10 is within one standard error of the best: less is noise, and as the learning
rate decays to zero over the schedule, later epochs are the calmer ones. Not here: what a family's loss and scores are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsae.datasets.schema import Histories
from recsae.datasets.splits import Split
from recsae.errors import InvalidRequestError
from recsae.recommenders.families.family import EpochReport, Progress
from recsae.recommenders.full_ranking import consumed_items
from recsae.recommenders.metrics import hit_ratio, ndcg_gains, ranks_from_scores

_K = 10
_VALIDATION_USERS = 5_000  # +-0.004 on HR@10, enough to compare epochs
_BATCH = 256

Ints = NDArray[np.int64]
Losses = Callable[[np.random.Generator], Iterator[Tensor]]
Scores = Callable[[Histories, Ints], Tensor]


@dataclass(frozen=True)
class Schedule:
    """`epochs` at most, ended by `patience` of them without a better NDCG@10; Adam's rate decays from `learning_rate`.

    `users_ranked` bounds how many users validate an epoch, and `every` how often one does.
    """

    epochs: int
    learning_rate: float
    patience: int
    seed: int = 0
    every: int = 1
    users_ranked: int = _VALIDATION_USERS

    def asked(self, seed: int, epochs: int) -> Schedule:
        """With another seed, and another number of epochs unless that is 0."""
        return replace(self, seed=seed, epochs=epochs or self.epochs)


@dataclass(frozen=True)
class Fit:
    """Validated epochs, and which of them the weights are from (an index into `reports`)."""

    reports: tuple[EpochReport, ...]
    kept: int

    @property
    def metrics(self) -> dict[str, float]:
        """Validation figures of the weights kept; the same for the same seed, hence fit to be part of a bundle."""
        report = self.reports[self.kept]
        return {
            "epoch": float(report.epoch),
            "train_loss": round(report.loss, 4),
            "valid_hr@10": round(report.hr_at_10, 4),
            "valid_ndcg@10": round(report.ndcg_at_10, 4),
        }


def fit(
    model: nn.Module,
    losses: Losses,
    scores: Scores,
    split: Split,
    schedule: Schedule,
    progress: Progress = lambda report: None,
) -> Fit:
    """Minimises `losses`, which yields the mean loss of each batch of one epoch; leaves the kept weights in `model`.

    `scores(histories, users)` are float [len(users), n_items + 1]; users count from 0. `progress` is called after each
    validated epoch; what it raises ends the training. InvalidRequestError when there is nothing to learn or validate.
    """
    if schedule.epochs < 1:
        raise InvalidRequestError(f"epochs is {schedule.epochs}, it must be at least 1; for a control use `untrained`")
    users, random = _validation_users(split, schedule), np.random.default_rng(schedule.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=schedule.learning_rate)
    reports: list[EpochReport] = []
    kept, weights, best, best_epoch = 0, model.state_dict(), -1.0, 0
    started = time.perf_counter()
    for epoch in range(1, schedule.epochs + 1):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * (1.0 - (epoch - 1) / schedule.epochs)
        loss = _epoch(model, optimizer, losses, random)
        if epoch % schedule.every and epoch < schedule.epochs:
            continue
        ranks = valid_ranks(model, scores, split.train, split.valid, users)
        gains = ndcg_gains(ranks, _K)
        ndcg, error = float(gains.mean()), float(gains.std() / len(gains) ** 0.5)
        seconds = time.perf_counter() - started
        reports.append(EpochReport(epoch, schedule.epochs, loss, hit_ratio(ranks, _K), ndcg, seconds))
        progress(reports[-1])
        if ndcg > best:
            best, best_epoch = ndcg, epoch
        if ndcg >= best - error:
            kept, weights = len(reports) - 1, {name: value.clone() for name, value in model.state_dict().items()}
        if epoch - best_epoch >= schedule.patience:
            break
    model.load_state_dict(weights)
    model.eval()
    return Fit(tuple(reports), kept)


@contextmanager
def seeded(seed: int, threads: int = 1) -> Iterator[None]:
    """Torch's random numbers from `seed` and its `threads`, as they were again afterwards.

    One thread is fastest for steps as small as these, and gives the same weights whatever the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


def valid_ranks(
    model: nn.Module, scores: Scores, histories: Histories, targets: NDArray[np.integer], users: Ints
) -> Ints:
    """Ranks int64 [len(users)] of `targets` [n_users] among the items not in the users' `histories`."""
    model.eval()
    ranks = []
    with torch.no_grad():
        for start in range(0, len(users), _BATCH):
            part = users[start : start + _BATCH]
            found = scores(histories, part).numpy()
            found[:, 0] = -np.inf
            rows, items = consumed_items(histories, part)
            found[rows, items] = -np.inf
            ranks.append(ranks_from_scores(found, targets[part]))
    return np.concatenate([np.zeros(0, np.int64), *ranks])


def _validation_users(split: Split, schedule: Schedule) -> Ints:
    """The users who validate, the same for the same seed."""
    users = np.flatnonzero((split.valid > 0) & (split.train.lengths > 0))
    if not len(users):
        raise InvalidRequestError(
            "the split leaves nobody with training items and a validation item; use a data set with longer histories"
        )
    if len(users) <= schedule.users_ranked:
        return users
    return np.sort(np.random.default_rng(schedule.seed).choice(users, schedule.users_ranked, replace=False))


def _epoch(model: nn.Module, optimizer: torch.optim.Optimizer, losses: Losses, random: np.random.Generator) -> float:
    model.train()
    total, batches = 0.0, 0
    for loss in losses(random):
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total, batches = total + float(loss.detach()), batches + 1
    if not batches:
        raise InvalidRequestError(
            "the split leaves nothing to learn from: no user has training items enough; use longer histories"
        )
    return total / batches
