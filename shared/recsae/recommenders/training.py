"""Trains next-item networks: a prediction at every position, softmax over the whole catalogue.

The schedule is warm-up, then linear decay to zero. The weights kept are those of the last epoch whose validation
NDCG@10 is within one standard error of the best: less is noise, and a decayed rate favours later epochs.
Not here: the networks (`families`), how histories are cut (`windows`), export, test figures (`evaluation`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recsae.datasets.splits import Split
from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.recommenders.families.family import EpochReport, Progress
from recsae.recommenders.families.next_item import Network, NextItemNetwork
from recsae.recommenders.full_ranking import target_ranks
from recsae.recommenders.metrics import hit_ratio, ndcg_gains
from recsae.recommenders.windows import by_length, cut_windows, shuffled

_LOGITS_AT_ONCE = 16_000_000  # 64 MB of float32: bounds memory however large the catalogue is
_VALIDATION_USERS = 5_000  # +-0.004 on HR@10, enough to compare epochs
_K = 10


@dataclass(frozen=True)
class TrainingConfig(Generic[Network]):
    """How to train. `epochs` is the length of the schedule; `patience` epochs without a better NDCG@10 cut it short.

    One thread is the default: the steps are small, and on a busy machine the barriers between threads made them several
    times slower. It also gives the same weights whatever the number of cores. `device` is torch's name of where to
    train, "cpu" or "cuda"; only the CPU gives the same weights again to the bit.

    `by_length` batches windows of like length, cut to the longest of the batch, as many targets a step as otherwise:
    the same training on average without the work on padding, several times faster where most histories are short.
    """

    max_history: int = 50
    dim: int = 64
    dropout: float = 0.2
    epochs: int = 12
    batch: int = 16
    learning_rate: float = 2e-3
    warm_up_share: float = 0.05
    patience: int = 6
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    by_length: bool = False

    def network(self, n_items: int) -> Network:
        """A new network over items 1..n_items."""
        raise NotImplementedError


@dataclass(frozen=True)
class TrainedNetwork(Generic[Network]):
    """The network with the weights kept, and how it got there."""

    model: Network
    reports: tuple[EpochReport, ...]
    kept_epoch: int

    @property
    def metrics(self) -> Mapping[str, float]:
        """Validation figures of the weights kept; the same for the same seed, hence fit to be part of a bundle."""
        kept = self.reports[self.kept_epoch - 1]
        return {
            "epoch": float(kept.epoch),
            "train_loss": round(kept.loss, 4),
            "valid_hr@10": round(kept.hr_at_10, 4),
            "valid_ndcg@10": round(kept.ndcg_at_10, 4),
        }


def train_network(
    split: Split,
    n_items: int,
    config: TrainingConfig[Network],
    progress: Progress = lambda report: None,
) -> TrainedNetwork[Network]:
    """Trains on `split.train` and keeps an epoch that ranks `split.valid` best; equal seeds give equal weights.

    `progress` is called after each epoch; what it raises ends the training. InvalidRequestError when no user has two
    items to learn from or nobody has a validation item.
    """
    if not (split.train.lengths >= 2).any() or not split.valid.any():
        raise InvalidRequestError(
            "the split leaves nothing to learn from: predicting the next item needs users with at least "
            "two training items and a validation item; use a data set with longer histories"
        )
    if config.epochs < 1:
        raise InvalidRequestError(f"epochs is {config.epochs}, it must be at least 1; a control is made by `untrained`")
    device = _device(config.device)
    with _threads(config.threads), torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        return _train(config.network(n_items).to(device), split, config, progress)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidRequestError(f"device {name!r} is unknown to torch; use cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise InvalidRequestError(f"networks train on cpu or cuda, not {name!r}")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise FailedPreconditionError(f"device is {name!r}, but torch finds no GPU here; use cpu")
        return torch.device("cuda", device.index or 0)
    return device


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(
    model: Network, split: Split, config: TrainingConfig[Network], progress: Progress
) -> TrainedNetwork[Network]:
    random = np.random.default_rng(config.seed)
    validation = _Validation(split, config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98))
    reports: list[EpochReport] = []
    kept_epoch, kept = 0, model.state_dict()
    best, best_epoch = -1.0, 0
    started = time.perf_counter()
    for epoch in range(1, config.epochs + 1):
        loss = _train_epoch(model, optimizer, split, config, epoch, random)
        score = validation.score(model)
        seconds = time.perf_counter() - started
        reports.append(EpochReport(epoch, config.epochs, loss, score.hr_at_10, score.ndcg_at_10, seconds))
        progress(reports[-1])
        if score.ndcg_at_10 > best:
            best, best_epoch = score.ndcg_at_10, epoch
        if score.ndcg_at_10 >= best - score.ndcg_error:
            kept_epoch, kept = epoch, {name: value.clone() for name, value in model.state_dict().items()}
        if epoch - best_epoch >= config.patience:
            break
    model.load_state_dict(kept)
    return TrainedNetwork(model.cpu().eval(), tuple(reports), kept_epoch)


def _train_epoch(
    model: NextItemNetwork,
    optimizer: torch.optim.Optimizer,
    split: Split,
    config: TrainingConfig[Any],
    epoch: int,
    random: np.random.Generator,
) -> float:
    """Mean loss per target, in nats."""
    model.train()
    device, total, count = model.item_bias.device, 0.0, 0
    for done, inputs, targets in _batches(split, config, random):
        rate = config.learning_rate * _schedule((epoch - 1 + done) / config.epochs, config.warm_up_share)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        total += backward_softmax(model, inputs.to(device), targets.to(device))
        count += int((targets > 0).sum())
        optimizer.step()
    return total / count


def _batches(
    split: Split, config: TrainingConfig[Any], random: np.random.Generator
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Share of the epoch done at the end of the batch, inputs and targets int64 [windows, longest]."""
    windows, done = cut_windows(split.train, config.max_history, random), 0
    for chosen in (by_length if config.by_length else shuffled)(windows, config.batch, random):
        inputs, targets = windows.gather(chosen, windows.lengths[chosen].max() if config.by_length else None)
        done += len(chosen)
        yield done / len(windows), torch.from_numpy(inputs), torch.from_numpy(targets)


def _schedule(done: float, warm_up_share: float) -> float:
    """Factor on the learning rate after the share `done` of all steps."""
    return min(1.0, done / warm_up_share if warm_up_share else 1.0) * max(0.0, 1.0 - done)


def backward_softmax(
    model: NextItemNetwork, inputs: Tensor, targets: Tensor, logits_at_once: int = _LOGITS_AT_ONCE
) -> float:
    """Adds the gradient of the mean cross-entropy over all items to the parameters; returns the *sum* of the losses.

    The gradient at the activations is gathered from slices of rows, so that no more than `logits_at_once` scores exist
    at a time; only then it goes through the network, once.
    """
    wanted = targets > 0
    activations, labels = model(inputs)[wanted], targets[wanted] - 1
    cut = activations.detach().requires_grad_()
    vectors = activations[0].numel() // model.shape.dim  # of each target: its interests, where there are several
    rows, total = max(1, logits_at_once // (model.shape.n_items * vectors)), 0.0
    for start in range(0, len(labels), rows):
        logits = model.scores(cut[start : start + rows], first=1)
        loss = functional.cross_entropy(logits, labels[start : start + rows], reduction="sum")
        (loss / len(labels)).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    torch.autograd.backward(activations, cut.grad)
    return total


@dataclass(frozen=True)
class _Score:
    hr_at_10: float
    ndcg_at_10: float
    ndcg_error: float  # standard error over users


class _Validation:
    """Ranks the validation items of a fixed sample of users by full ranking."""

    def __init__(self, split: Split, config: TrainingConfig[Any]) -> None:
        users = np.flatnonzero((split.valid > 0) & (split.train.lengths > 0))
        if len(users) > _VALIDATION_USERS:
            users = np.sort(np.random.default_rng(config.seed).choice(users, _VALIDATION_USERS, replace=False))
        self._split, self._users = split, users

    def score(self, model: NextItemNetwork) -> _Score:
        """HR@10 and NDCG@10 of the sample."""
        ranks = target_ranks(model, self._split.train, self._split.valid, self._users)
        gains = ndcg_gains(ranks, _K)
        return _Score(hit_ratio(ranks, _K), float(gains.mean()), float(gains.std() / len(gains) ** 0.5))
