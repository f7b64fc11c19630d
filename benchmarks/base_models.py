"""Trains the recommenders that the fidelity benchmark opens up, and keeps them in a cache.

    python -m benchmarks.base_models --data DATA --device cuda --out .cache/bench/base --search --jobs 10

DATA holds `ml-1m` and `amazon-beauty` as atomic files (benchmarks/convert.py). Every base model has candidates; with
`--search` all are trained and the one with the best validation NDCG@10 is kept, otherwise the first is trained. Test
figures are computed for the kept one only. A cached network is used again when data and settings are the same.

Needs torch, numpy, safetensors and what reading atomic files needs. Not here: SAEs (`fidelity`), RecBole's models
(`recbole`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from recsae.concepts.splits import UserPart, split_users
from recsae.datasets.atomic import load_atomic
from recsae.datasets.schema import Dataset
from recsae.datasets.splits import Split, leave_one_out
from recsae.recommenders.families.family import EpochReport
from recsae.recommenders.families.sasrec import Sasrec, SasrecConfig
from recsae.recommenders.full_ranking import target_ranks
from recsae.recommenders.metrics import ranking_quality
from recsae.recommenders.training import train_network
from recsae.store.files import canonical_json

CUTOFFS = (10, 20)
_ELSEWHERE = ("device", "threads")  # where a network was trained is no part of what it is

_ML_64 = SasrecConfig(
    max_history=200,
    dim=64,
    heads=2,
    dropout=0.2,
    epochs=100,
    batch=128,
    learning_rate=2e-3,
    patience=15,
    by_length=True,
)
_ML_256 = replace(_ML_64, dim=256, heads=4, dropout=0.5, epochs=60, learning_rate=1e-3)
_BEAUTY_64 = replace(_ML_64, max_history=50, dropout=0.5, epochs=40, learning_rate=1e-3, patience=10)
_BEAUTY_256 = replace(_BEAUTY_64, dim=256, heads=4, epochs=30, learning_rate=5e-4)


@dataclass(frozen=True)
class Base:
    """A base model: its data set's folder, the settings to choose from on validation, best known first, and its rows.

    `rows` names what of the data it learns from: "all"; "older", the oldest ten elevenths of every history, so that all
    is 10 % more; "sae_users", only users an SAE is trained on.
    """

    data: str
    candidates: tuple[SasrecConfig, ...]
    rows: str = "all"


BASES = {
    "ml-1m-d64": Base("ml-1m", (_ML_64, replace(_ML_64, dropout=0.3), replace(_ML_64, learning_rate=1e-3))),
    "ml-1m-d256": Base("ml-1m", (_ML_256, replace(_ML_256, dropout=0.4), replace(_ML_256, learning_rate=5e-4))),
    "amazon-beauty-d64": Base(
        "amazon-beauty", (_BEAUTY_64, replace(_BEAUTY_64, dropout=0.6), replace(_BEAUTY_64, dropout=0.4))
    ),
    "amazon-beauty-d256": Base("amazon-beauty", (replace(_BEAUTY_256, dropout=0.6), _BEAUTY_256)),
    "ml-1m-d64-older": Base("ml-1m", (replace(_ML_64, seed=1),), "older"),
    "ml-1m-d64-unseen": Base("ml-1m", (_ML_64,), "sae_users"),
}
_OLDER = 10 / 11


@dataclass(frozen=True)
class TrainedBase:
    """The network in evaluation mode on the CPU, the data it was trained on, and its record as written."""

    model: Sasrec
    dataset: Dataset
    split: Split
    record: dict[str, Any]


def base_model(name: str, data: Path, cache: Path, config: SasrecConfig, *, test: bool = True) -> TrainedBase:
    """The network of these settings: from `cache` when it is there with this data and these settings, else trained."""
    dataset = load_atomic(data / BASES[name].data).dataset
    split = _split(dataset, BASES[name].rows)
    weights, described = cache / f"{name}.safetensors", cache / f"{name}.json"
    identity = _identity(dataset, config, BASES[name].rows)
    if described.is_file() and weights.is_file():
        record = json.loads(described.read_bytes())
        if record["identity"] == identity:
            model = Sasrec(config.shape(dataset.items.count))
            model.load_state_dict(load_file(weights))
            return TrainedBase(model.eval(), dataset, split, record)
    started = time.perf_counter()
    trained = train_network(split, dataset.items.count, config, lambda report: _say(name, report))
    seconds = round(time.perf_counter() - started, 1)
    record = {"name": name, "identity": identity, "data": dataset.fingerprint(), "config": asdict(config)}
    record |= {"seconds": seconds, "device": _device_name(config.device), "epochs": len(trained.reports)}
    record |= {"kept_epoch": trained.kept_epoch, "valid": figures(trained.model, split, "valid")}
    if test:
        record |= {
            "test": figures(trained.model, split, "test"),
            "test_consumed_compete": figures(trained.model, split, "test", consumed=True),
        }
    cache.mkdir(parents=True, exist_ok=True)
    save_file(trained.model.state_dict(), weights)
    described.write_bytes(json.dumps(record, indent=1).encode())
    return TrainedBase(trained.model, dataset, split, record)


def figures(model: Sasrec, split: Split, part: str, *, consumed: bool = False) -> dict[str, float]:
    """HR and NDCG at 10 and 20 over all users with a target, by full ranking; `part` is "valid" or "test"."""
    histories, targets = (split.train, split.valid) if part == "valid" else (split.before_test, split.test)
    users = np.flatnonzero((targets > 0) & (histories.lengths > 0))
    quality = ranking_quality(target_ranks(model, histories, targets, users, consumed=consumed), CUTOFFS)
    return {"users": len(users)} | {measure: round(value, 4) for measure, value in quality.items()}


def search(names: Sequence[str], arguments: argparse.Namespace) -> None:
    """Trains every candidate in a process of its own, at most `jobs` at a time, and keeps the best by validation.

    A candidate that fails or exceeds `minutes` is out.
    """
    tasks = [(name, number) for name in names for number in range(len(BASES[name].candidates))]
    tasks.sort(key=lambda task: -BASES[task[0]].candidates[task[1]].dim)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda task: _in_a_process(task[0], task[1], arguments), tasks))
    for name in names:
        folders = [_folder(arguments.out, name, number) for number in range(len(BASES[name].candidates))]
        records = {
            number: json.loads((folder / f"{name}.json").read_bytes())
            for number, folder in enumerate(folders)
            if (folder / f"{name}.json").is_file()
        }
        if not records:
            continue
        chosen = max(records, key=lambda number: records[number]["valid"]["ndcg@10"])
        kept = base_model(name, arguments.data, folders[chosen], candidate(name, chosen, arguments))
        _keep(kept, records, arguments.out)


def _keep(kept: TrainedBase, records: dict[int, dict[str, Any]], out: Path) -> None:
    tried = [{"config": one["config"], "valid": one["valid"], "seconds": one["seconds"]} for one in records.values()]
    tested = {
        "test": figures(kept.model, kept.split, "test"),
        "test_consumed_compete": figures(kept.model, kept.split, "test", consumed=True),
    }
    record = kept.record | tested | {"search": tried}
    name = record["name"]
    save_file(kept.model.state_dict(), out / f"{name}.safetensors")
    (out / f"{name}.json").write_bytes(json.dumps(record, indent=1).encode())
    _print({"name": name, "config": record["config"], "valid": record["valid"], **tested})


def _in_a_process(name: str, number: int, arguments: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "benchmarks.base_models", "--data", str(arguments.data), "--only", name]
    command += ["--device", arguments.device, "--out", str(_folder(arguments.out, name, number))]
    command += ["--threads", str(arguments.threads), "--epochs", str(arguments.epochs)]
    bound = 60 * arguments.minutes or None
    try:
        subprocess.run([*command, "--candidate", str(number), "--no-test"], check=False, timeout=bound)
    except subprocess.TimeoutExpired:
        _print({"name": name, "candidate": number, "out_of_time": True})


def candidate(name: str, number: int, arguments: argparse.Namespace) -> SasrecConfig:
    """Settings of a candidate with what the command line says about device, threads and epochs."""
    config = replace(BASES[name].candidates[number], device=arguments.device, threads=arguments.threads)
    return replace(config, epochs=arguments.epochs) if arguments.epochs else config


def _folder(out: Path, name: str, number: int) -> Path:
    return out / "candidates" / f"{name}-{number}"


def _split(dataset: Dataset, rows: str) -> Split:
    """Leave-one-out over what a base model of these `rows` learns from; users keep their index."""
    histories = dataset.histories
    if rows == "older":
        place = np.arange(len(histories.items)) - histories.offsets[histories.users]
        histories = histories.keep(place < np.ceil(histories.lengths * _OLDER)[histories.users])
    elif rows == "sae_users":
        kept = split_users(dataset.users.ids) == UserPart.SAE
        split = leave_one_out(histories)
        return replace(split, train=split.train.keep(kept[split.train.users]), valid=np.where(kept, split.valid, 0))
    return leave_one_out(histories)


def _identity(dataset: Dataset, config: SasrecConfig, rows: str) -> str:
    settings = {name: value for name, value in asdict(config).items() if name not in _ELSEWHERE}
    facts = {"data": dataset.fingerprint(), "config": settings} | ({} if rows == "all" else {"rows": rows})
    return hashlib.sha256(canonical_json(facts)).hexdigest()[:16]


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"


def _say(name: str, report: EpochReport) -> None:
    _print(asdict(report) | {"name": name})


def _print(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)  # noqa: T201


def main() -> None:
    """Trains what is asked for and prints each epoch and each result as a line of JSON."""
    parser = argparse.ArgumentParser(description="Base models of the fidelity benchmark.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(".cache/bench/base"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=list(BASES), default=list(BASES))
    parser.add_argument("--search", action="store_true", help="choose among the candidates on validation")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time in a search")
    parser.add_argument("--minutes", type=float, default=0.0, help="most a candidate may take in a search")
    parser.add_argument("--candidate", type=int, default=0, help="which settings to train without a search")
    parser.add_argument("--epochs", type=int, default=0, help="length of the schedule instead of the candidate's own")
    parser.add_argument("--no-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.search:
        search(arguments.only, arguments)
        return
    for name in arguments.only:
        config = candidate(name, arguments.candidate, arguments)
        trained = base_model(name, arguments.data, arguments.out, config, test=not arguments.no_test)
        _print(trained.record)


if __name__ == "__main__":
    main()
