"""Trains and tests RecBole's models and writes the figures our own are compared with.

    PYTHONPATH=shared .venv-recbole/bin/python -m benchmarks.recbole
    PYTHONPATH=shared .venv-recbole/bin/python -m benchmarks.recbole --data DATA/ml-1m --device cuda --only SASRec

Every candidate of a model is trained (`settings`); for each counting the one with the best validation NDCG@10 is
reported. A finished training is kept in the cache and not repeated.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import this_machine
from benchmarks.recbole.material import example_folder, material, prepare
from benchmarks.recbole.measures import COUNTINGS
from benchmarks.recbole.settings import MODELS, PROTOCOL
from benchmarks.recbole.training import train
from benchmarks.recbole.workplace import recbole_workplace
from recsae.datasets.schema import Dataset
from recsae.store.files import canonical_json, write_atomic

_RELEASE = "1.2.1"


def main() -> None:
    """Runs what is asked for, writes `OUT` and prints its last line: the figures by model."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    cache, out = arguments.cache.resolve(), arguments.out
    folder = (arguments.data or example_folder()).resolve()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        dataset = prepare(folder, Path(scratch))
        out = (out or Path(__file__).parent / f"{dataset.name}.json").resolve()
        for name in arguments.only:
            records: list[dict[str, Any]] = []
            for number in range(len(MODELS[name].candidates)):
                records.append(_candidate(dataset, Path(scratch), name, number, arguments, cache))
                found[name] = _chosen(name, records)
                write_atomic(out, _document(dataset, found, out, arguments).encode())
            _say(json.dumps({name: {counting: found[name][counting] for counting in COUNTINGS}}))


def _candidate(
    dataset: Dataset, scratch: Path, name: str, number: int, arguments: argparse.Namespace, cache: Path
) -> dict[str, Any]:
    """Record of one training, from the cache when the same was trained before."""
    model = MODELS[name]
    facts: dict[str, Any] = {"model": name, "data": dataset.fingerprint(), "seed": arguments.seed}
    facts |= {"settings": {**PROTOCOL, **model.settings, **model.candidates[number]}, "patience": model.patience}
    facts |= {
        "epochs": arguments.epochs or model.epochs,
        "minutes": arguments.minutes or model.minutes,
        "release": _RELEASE,
    }
    kept = cache / f"{name}-{hashlib.sha256(canonical_json(facts)).hexdigest()[:12]}.json"
    if kept.is_file():
        record: dict[str, Any] = json.loads(kept.read_bytes())
        return record
    with recbole_workplace():
        made = material(dataset, scratch, name, model.candidates[number], arguments.device, arguments.seed)
        bounds = {"epochs": arguments.epochs or model.epochs, "patience": model.patience}
        trained = train(made, **bounds, minutes=arguments.minutes or model.minutes, say=_say)
    record = {
        "settings": {**model.settings, **model.candidates[number]},
        "machine": _machine(arguments),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        **trained.record,
    }
    write_atomic(kept, json.dumps(record, indent=1).encode())
    return record


def _chosen(name: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    """For each counting the candidate with the best validation NDCG@10, and the search."""
    entry: dict[str, Any] = {"note": MODELS[name].note} if MODELS[name].note else {}
    for counting in COUNTINGS:
        best = max(records, key=lambda record: record[counting]["valid"]["ndcg10"])
        entry[counting] = {
            **best[counting]["test"],
            "valid_ndcg10": best[counting]["valid"]["ndcg10"],
            "settings": best["settings"],
            "epochs": best[counting]["kept_epoch"],
            "seconds": best["seconds"],
            "cpu_seconds": best["cpu_seconds"],
        }
    entry["search"] = [
        {key: record[key] for key in ("settings", "epochs", "stopped_by", "seconds", "cpu_seconds", "machine", "date")}
        | {"valid_ndcg10": {counting: record[counting]["valid"]["ndcg10"] for counting in COUNTINGS}}
        | {"recbole_reports": record["recbole_reports"]}
        for record in records
    ]
    return entry


def _document(dataset: Dataset, found: dict[str, Any], out: Path, arguments: argparse.Namespace) -> str:
    """The models of this run beside those of earlier runs on the same data."""
    before: dict[str, Any] = json.loads(out.read_bytes()) if out.is_file() else {}
    same = before.get("fingerprint") == dataset.fingerprint() and before.get("seed") == arguments.seed
    models = {**(before["models"] if same else {}), **found}
    document = {
        "data": dataset.name,
        "fingerprint": dataset.fingerprint(),
        "users": len(dataset.users.ids),
        "items": dataset.items.count,
        "protocol": "leave-one-out by time, equal times in file order; full ranking; ties rank the target last",
        "consumed_compete": "items the user has consumed are ranked too, as RecBole does for sequential models",
        "excluding_consumed": "items the user has consumed are left out, as recsae.recommenders.evaluation does",
        "seconds": "wall clock, on a machine that did other work too; cpu_seconds is what the process used",
        "recbole": _RELEASE,
        "torch": torch.__version__,
        "seed": arguments.seed,
        "families": {MODELS[name].family: _brief(name, models[name]) for name in MODELS if name in models},
        "models": {name: models[name] for name in MODELS if name in models},
    }
    return json.dumps(document, indent=1) + "\n"


def _brief(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """What stands beside our family: figures counted as ours are."""
    counted = entry["excluding_consumed"]
    return {"model": name, "ndcg10": counted["ndcg10"], "hr10": counted["hr10"]}


def _machine(arguments: argparse.Namespace) -> str:
    if arguments.device != "cpu":
        return str(torch.cuda.get_device_name())
    return f"{this_machine().processor}, {arguments.threads} thread" + ("s" if arguments.threads > 1 else "")


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="RecBole's models under our protocol.")
    parser.add_argument("--data", type=Path, default=None, help="folder with NAME.inter; ML-100K out of RecBole itself")
    parser.add_argument("--out", type=Path, default=None, help="benchmarks/recbole/NAME.json")
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench/recbole"))
    parser.add_argument("--only", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=0, help="most epochs instead of the model's own")
    parser.add_argument("--minutes", type=float, default=0.0, help="processor time after which a training ends")
    parser.add_argument("--seed", type=int, default=2020)
    return parser.parse_args()


if __name__ == "__main__":
    main()
