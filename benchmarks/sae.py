"""`make bench-sae`: training throughput of TopK SAEs, ours beside the public libraries, in one run.

Everyone trains on the same rows in memory, at the same batch and thread count, one at a time in turns; then everyone
trains on the same number of rows and is scored on held-out ones, because faster must not mean worse. About 20 minutes
and up to 10 GB of memory; `--quick` takes two minutes and says nothing about the loss. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.contenders.roster import ROSTER, Entry
from benchmarks.crew import PEERS_PYTHON, ROOT, Worker, environment
from benchmarks.floor import floor_of
from benchmarks.machine import this_machine
from benchmarks.peaks import Peaks
from benchmarks.race import FULL, QUICK, Data, Result, race
from benchmarks.report import contenders_table, floor_table, machine_lines, saying, summary, today
from benchmarks.shapes import HELD_OUT_ROWS, SHAPES, Shape

_PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # where set, they hold OpenBLAS to an older processor's kernels
_LOGS = ROOT / ".cache" / "benchmarks"


def main() -> int:
    """Measures, prints, and returns 1 when a contender failed."""
    asked = _arguments()
    machine = this_machine()
    shapes = [shape for shape in SHAPES if shape.name in asked.shapes]
    entries = _entries(asked.only, machine.features)
    _LOGS.mkdir(parents=True, exist_ok=True)
    console = Console(width=150)
    for line in machine_lines(machine, asked.threads, today()):
        console.print(line, highlight=False)
    results: dict[str, list[Result]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=_LOGS)))
        workers = [stack.enter_context(Worker(entry, asked.threads, _LOGS / f"{entry.slug}.log")) for entry in entries]
        peaks = _peaks(asked.threads)
        say = stack.enter_context(saying("starting"))
        for shape in shapes:
            plan = QUICK if asked.quick else FULL
            peaks = peaks.better_of(_peaks(asked.threads))
            results[shape.name] = race(workers, shape, _plant(shape, folder), plan, say)
            console.print(contenders_table(shape, results[shape.name]))
        peaks = peaks.better_of(_peaks(asked.threads))
    floors = {shape.name: floor_of(shape, peaks, machine.l2_bytes) for shape in shapes}
    console.print(floor_table(floors, results))
    console.print(f"Measured peaks: {peaks.gemm_flops / 1e9:.0f} GFLOP/s fp32", highlight=False)
    sys.stdout.write(json.dumps(summary(results, floors)) + "\n")
    return int(any(result.failure for shape_results in results.values() for result in shape_results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench-sae", description="Training throughput of TopK SAEs, side by side."
    )
    parser.add_argument("--threads", type=int, default=1, help="threads each contender may use")
    parser.add_argument("--quick", action="store_true", help="a smoke run of about two minutes")
    parser.add_argument("--shapes", default="SML", help="which of S, M and L")
    parser.add_argument("--only", default="", help="contenders whose name holds one of these, separated by /")
    return parser.parse_args()


def _entries(only: str, features: Sequence[str]) -> list[Entry]:
    wanted = [
        entry for entry in ROSTER if entry.runs_on(features) and any(word in entry.name for word in only.split("/"))
    ]
    if any(entry.environment == "peers" for entry in wanted) and not PEERS_PYTHON.exists():
        raise SystemExit("the public libraries are not installed: run `make bench-sae`, which makes .venv-peers")
    return wanted


def _plant(shape: Shape, folder: Path) -> Data:
    data = Data(folder / f"{shape.name}.npy", folder / f"{shape.name}-held-out.npy")
    shape.planted.write(data.stream, shape.stream)
    np.save(data.held_out, shape.planted.held_out(HELD_OUT_ROWS))
    return data


def _peaks(threads: int) -> Peaks:
    command = [sys.executable, "-m", "benchmarks.peaks"]
    free = {name: value for name, value in environment(threads).items() if name not in _PINS}
    run = subprocess.run(command, cwd=ROOT, env=free, stdout=subprocess.PIPE, text=True, check=True)
    return Peaks(**json.loads(run.stdout))


if __name__ == "__main__":
    sys.exit(main())
