"""`make bench-families`: trains, serves, interprets and steers every family; writes docs/families.md and .json.

    python -m benchmarks.families [--data DATA] [--only ml-100k] [--family gru4rec ...] [--again]

MovieLens-100K is fetched. DATA may hold `ml-1m` as atomic files (benchmarks/convert.py); without it that set is
skipped with a sentence. What was computed lies in the cache and is not computed again, unless asked for.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
import torch

from benchmarks.families.page import TITLES, line, write
from benchmarks.families.study import steer, study
from benchmarks.machine import this_machine
from recsae.cli.commands.data import add_dataset, fetch_ml100k_into
from recsae.cli.workspace import DatasetEntry, Workspace
from recsae.datasets.atomic import load_atomic
from recsae.recommenders.families.table import FAMILIES
from recsae.store.files import write_json_atomic

_FETCHED, _GIVEN = "ml-100k", "ml-1m"
_RECBOLE = Path(__file__).parent.parent / "recbole"


def main() -> None:
    """Runs what is asked for; the documents are written from all that was computed, now or before."""
    parser = argparse.ArgumentParser(description="Every model family through the same path.")
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench/families"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--only", nargs="*", choices=(_FETCHED, _GIVEN), default=[_FETCHED, _GIVEN])
    names = [one.name for one in FAMILIES]
    parser.add_argument("--family", nargs="*", choices=names, default=names)
    parser.add_argument("--again", action="store_true", help="compute what is in the cache again")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    for data in arguments.only:
        workspace = Workspace(arguments.cache / data)
        dataset = _dataset(workspace, data, arguments.data)
        if dataset is not None:
            _run(workspace, dataset, arguments.family, arguments.threads, again=arguments.again)
    found = {data: families for data in (_FETCHED, _GIVEN) if (families := _kept(arguments.cache / data, names))}
    recbole = {data: _recbole(data) for data in found}
    write(found, recbole, arguments.out, this_machine())
    _say(f"written: {arguments.out / 'families.md'}, {arguments.out / 'families.json'}")
    lines = {
        data: {TITLES.get(name, name): line(one, recbole[data].get(name, {})) for name, one in families.items()}
        for data, families in found.items()
    }
    _say(json.dumps({"bench": "families", **lines}))


def _run(workspace: Workspace, dataset: DatasetEntry, names: Sequence[str], threads: int, *, again: bool) -> None:
    for name in names:
        found, steered = _results(workspace.home, name)
        if again or not found.exists():
            _say(f"{dataset.name}: {name}")
            result = study(workspace, dataset, name, threads=threads, say=lambda words: _say(f"  {words}"))
            write_json_atomic(found, result.as_json())
            steered.unlink(missing_ok=True)
        if not steered.exists():
            _say(f"{dataset.name}: {name} steered")
            triple = json.loads(found.read_bytes())["triple"]
            write_json_atomic(steered, {"steered": steer(workspace, dataset, triple, threads=threads)})


def _kept(home: Path, names: Sequence[str]) -> dict[str, Any]:
    """What was computed of a data set, by family, in the table's order."""
    every = {name: _results(home, name) for name in names}
    return {
        name: {key: value for path in paths for key, value in json.loads(path.read_bytes()).items()}
        for name, paths in every.items()
        if all(path.exists() for path in paths)
    }


def _results(home: Path, name: str) -> tuple[Path, Path]:
    """Where figures of a family are kept: of its refresh, and of steering."""
    return home / "results" / f"{name}.json", home / "results" / f"{name}-steered.json"


def _dataset(workspace: Workspace, name: str, data: Path | None) -> DatasetEntry | None:
    """The data set in the workspace, added when it is not there yet; None, with a sentence, when it cannot be had."""
    if known := [entry for entry in workspace.datasets() if entry.name == name]:
        return known[0]
    if name == _FETCHED:
        return fetch_ml100k_into(workspace)
    if data is None or not (data / name).is_dir():
        where = f"{data / name} is not there" if data else "DATA= is not given"
        _say(f"{name} is skipped: {where}; README.md says how to get the data")
        return None
    return add_dataset(workspace, load_atomic(data / name, name).dataset)


def _recbole(data: str) -> Mapping[str, Any]:
    """RecBole's figures of a data set by family, as `benchmarks/recbole` left them; nothing when it was not run."""
    path = _RECBOLE / f"{data}.json"
    return json.loads(path.read_bytes())["families"] if path.exists() else {}


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
