"""RecBole's own SASRec on the same data and the same leave-one-out split: what our base models must not fall behind.

    python -m benchmarks.recbole_base --data DATA --name ml-1m --device cuda --minutes 5 --out recbole-ml-1m.json

RecBole is no dependency of this project. It runs in an environment of its own: torch, numpy, scipy, scikit-learn, tqdm,
pyyaml, tensorboard, colorama and psutil of any recent release and, by `pip install --no-deps`,
recbole==1.2.1 colorlog==4.7.2 texttable==1.7.0 thop "pandas<3". Its `quick_start` would need ray; nothing here does.

RecBole 1.2.1 predates numpy 2: the names it takes from numpy are put back below, openly, before it is imported.
RecBole ranks the items a user has consumed too. Its own figures are reported as `recbole`, and ours, which leave
consumed items out, as `excluding_consumed`. Best epoch by validation NDCG@10; the time bound ends training early.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

_CUTOFFS = (10, 20)
_RANKED_AT_ONCE = 512

# Defaults of RecBole's SASRec.yaml and overall.yaml, spelt out so that a reader sees what was run.
_SETTINGS: dict[str, Any] = {
    "n_layers": 2,
    "n_heads": 2,
    "hidden_size": 64,
    "inner_size": 256,
    "hidden_dropout_prob": 0.5,
    "attn_dropout_prob": 0.5,
    "loss_type": "CE",
    "train_neg_sample_args": None,
    "learning_rate": 1e-3,
    "train_batch_size": 2048,
    "eval_batch_size": 512,
    "epochs": 300,
    "stopping_step": 10,
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
    "metrics": ["Hit", "NDCG"],
    "topk": list(_CUTOFFS),
    "valid_metric": "NDCG@10",
    "show_progress": False,
    "save_dataset": False,
    "save_dataloaders": False,
    "log_wandb": False,
}


class OutOfTimeError(Exception):
    """The time bound is reached."""


def main() -> None:
    """Trains, evaluates, prints one line of JSON and writes it where `--out` says."""
    arguments = _arguments()
    data, out = arguments.data.resolve(), arguments.out and arguments.out.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # RecBole writes logs and event files into the current folder
        sys.argv = sys.argv[:1]  # and reads the command line itself
        result = train_and_test(data, arguments)
        os.chdir("/")
    line = json.dumps(result)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(line + "\n")
    print(line)  # noqa: T201


def train_and_test(data: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Validation and test figures, epochs, seconds and settings."""
    _restore_numpy_names()
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender.sasrec import SASRec
    from recbole.trainer import Trainer
    from recbole.utils import init_logger, init_seed

    settings = _SETTINGS | {"data_path": str(data), "MAX_ITEM_LIST_LENGTH": arguments.max_history}
    settings |= {"use_gpu": arguments.device != "cpu", "gpu_id": "0", "state": "INFO", "seed": arguments.seed}
    if arguments.max_history > settings["eval_batch_size"] // 2:
        settings["train_batch_size"] //= 4
    config = Config(model="SASRec", dataset=arguments.name, config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    dataset = create_dataset(config)
    consumed = _consumed_before_test(dataset)
    train, valid, test = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = SASRec(config, train._dataset).to(config["device"])
    trainer = Trainer(config, model)
    best = _Best(model, arguments.minutes)
    try:
        trainer.fit(train, valid, saved=False, show_progress=False, callback_fn=best)
    except OutOfTimeError:
        trainer.eval_collector.data_collect(train)
    model.load_state_dict(best.state)
    return {
        "bench": "recbole_sasrec",
        "data": arguments.name,
        "device": str(config["device"]),
        "max_history": arguments.max_history,
        "epochs": best.epochs,
        "kept_epoch": best.epoch,
        "stopped_by_time": best.out_of_time,
        "seconds": round(best.seconds, 1),
        "valid": {"ndcg@10": round(best.score, 4)},
        "recbole": {name: float(value) for name, value in trainer.evaluate(test, load_best_model=False).items()},
        "excluding_consumed": _excluding_consumed(model, test.dataset, consumed),
    }


class _Best:
    """Keeps the weights of the best validation epoch in memory, and ends training when the time is up."""

    def __init__(self, model: Any, minutes: float) -> None:
        self._model, self._most, self._started = model, 60 * minutes, time.perf_counter()
        self.score, self.epoch, self.epochs, self.seconds, self.out_of_time = -1.0, 0, 0, 0.0, False
        self.state: dict[str, Any] = {}

    def __call__(self, epoch: int, score: float) -> None:
        self.epochs, self.seconds = epoch + 1, time.perf_counter() - self._started
        if score > self.score:
            self.score, self.epoch = float(score), epoch + 1
            self.state = {name: value.detach().clone() for name, value in self._model.state_dict().items()}
        if self.seconds > self._most:
            self.out_of_time = True
            raise OutOfTimeError


def _consumed_before_test(dataset: Any) -> dict[int, Any]:
    """RecBole's user index -> its item indexes but the newest: the interactions before RecBole cuts them to lists."""
    table = dataset.inter_feat.sort_values([dataset.uid_field, dataset.time_field], kind="stable")
    users, items = table[dataset.uid_field].to_numpy(), table[dataset.iid_field].to_numpy()
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    return {
        int(users[begin]): items[begin : end - 1] for begin, end in zip(starts, [*starts[1:], len(users)], strict=True)
    }


def _excluding_consumed(model: Any, test: Any, consumed: dict[int, Any]) -> dict[str, float]:
    """HR and NDCG by our rule: items the user consumed before the test item are left out, ties rank the target last."""
    import torch

    model.eval()
    users, targets = test.inter_feat[test.uid_field].numpy(), test.inter_feat[test.iid_field].numpy()
    ranks = []
    for begin in range(0, len(users), _RANKED_AT_ONCE):
        some = slice(begin, begin + _RANKED_AT_ONCE)
        with torch.no_grad():
            raw = model.full_sort_predict(test.inter_feat[some].to(model.device))
        scores = raw.view(len(users[some]), -1).cpu().numpy()
        scores[:, 0] = -np.inf
        for row, user in enumerate(users[some]):
            scores[row, consumed[int(user)]] = -np.inf
        own = scores[np.arange(len(scores)), targets[some]]
        ranks.append(np.where(np.isfinite(own), (scores >= own[:, None]).sum(axis=1), scores.shape[1] + 1))
    found = np.concatenate(ranks)
    measures: dict[str, float] = {"users": len(found)}
    for k in _CUTOFFS:
        measures[f"hr@{k}"] = round(float((found <= k).mean()), 4)
        measures[f"ndcg@{k}"] = round(float(np.where(found <= k, 1.0 / np.log2(found + 1.0), 0.0).mean()), 4)
    return measures


def _restore_numpy_names() -> None:
    """RecBole 1.2.1 reads names that numpy 2 no longer has; each is what numpy 1 said it was."""
    old = {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_, "string_": np.bytes_}
    for name, kind in old.items():
        if not hasattr(np, name):
            setattr(np, name, kind)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="RecBole's SASRec on a folder of atomic files.")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds NAME/NAME.inter")
    parser.add_argument("--name", default="ml-1m")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--minutes", type=float, default=10.0, help="training ends after the epoch that passes this")
    parser.add_argument("--max-history", type=int, default=50)
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--out", type=Path, default=None)
    return parser.parse_args()


if __name__ == "__main__":
    main()
