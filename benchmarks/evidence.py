"""`python -m benchmarks.evidence`: what the evidence of concepts costs as the number of activations grows.

Shards lie on disk, as collect leaves them; every point runs in a process of its own (`evidence_point`). The SAE is
random: what a latent means changes nothing here. 10 million rows take 2.6 GB of disk. A table, and one line of JSON per
point.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.crew import ROOT, environment
from benchmarks.evidence_point import LENGTH, Measured, Point, histories
from benchmarks.machine import this_machine
from benchmarks.planted import Planted
from benchmarks.report import machine_lines, saying, today
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.shards import ActivationShard, write_shard
from recsae.sae.weights import SaeWeights

D, WIDTH, K = 64, 1024, 8
ROWS = (100_000, 1_000_000, 10_000_000)
# About what collect writes, in whole histories; a fifth of the rows where there are few, so that every part has some.
_SHARD_ROWS = 65_500


def main() -> int:
    """Measures and prints."""
    asked = _arguments()
    console = Console(width=150)
    cache = ROOT / ".cache" / "benchmarks"
    cache.mkdir(parents=True, exist_ok=True)
    for line in machine_lines(this_machine(), asked.threads, today()):
        console.print(line, highlight=False)
    found: list[tuple[Point, Measured]] = []
    with saying("writing shards") as say:
        for rows in (count for count in ROWS if count <= asked.max):
            point = Point(rows, min(_SHARD_ROWS, rows // 5 // LENGTH * LENGTH))
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                say(f"{rows:,} activations: writing shards")
                write_inputs(Path(scratch), point, Planted(D, atoms=WIDTH // 2, active=K // 2), width=WIDTH, k=K)
                say(f"{rows:,} activations: reading them")
                found.append((point, measure(point, Path(scratch), asked.threads)))
    console.print(evidence_table(found))
    for point, measured in found:
        sys.stdout.write(json.dumps(summary(point, measured)) + "\n")
    return 0


def write_inputs(folder: Path, point: Point, planted: Planted, *, width: int, k: int) -> None:
    """Shards in `folder/shards`, one in memory at a time, and a random SAE in `folder/sae`."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(width, planted.d))
    w = (w / np.linalg.norm(w, axis=1, keepdims=True)).astype(np.float32)
    zeros = np.zeros(planted.d, np.float32)
    (folder / "sae").mkdir()
    weights = SaeWeights(w, np.zeros(width, np.float32), w, zeros, zeros)
    export_sae(weights, k, TrainingFacts(error_p99=1.0, mean_norm=1.0, scores={}, config={}), folder / "sae")
    known = histories(point.rows)
    for number, at in enumerate(range(0, point.rows, point.shard_rows)):
        stop = min(at + point.shard_rows, point.rows)
        x = np.concatenate(list(planted.blocks(stop - at, first=number * planted.blocks_of(point.shard_rows))))
        row = np.arange(at, stop, dtype=np.int32)
        shard = ActivationShard(x, row // LENGTH, row % LENGTH, known.items[at:stop])
        write_shard(folder / "shards", f"{number:05d}", shard, {"model": "planted"})


def measure(point: Point, folder: Path, threads: int) -> Measured:
    """In a new process."""
    command = [sys.executable, "-m", "benchmarks.evidence_point", json.dumps(asdict(point)), str(folder)]
    run = subprocess.run(command, cwd=ROOT, env=environment(threads), stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(run.stdout.splitlines()[-1]))


def evidence_table(found: list[tuple[Point, Measured]]) -> Table:
    """One row per point."""
    table = Table(title=f"Evidence (width {WIDTH:,}, k = {K}, d = {D})", title_justify="left")
    for heading in ("activations", "shards", "map s", "merge s", "us each", "CPU us each", "map memory", "merge memory",
                    "largest shard's sums", "merged sums"):  # fmt: skip
        table.add_column(heading, justify="right")
    for point, measured in found:
        figures = summary(point, measured)
        table.add_row(
            f"{point.rows:,}",
            str(figures["shards"]),
            f"{measured.map_seconds:.1f}",
            f"{measured.merge_seconds:.1f}",
            f"{figures['us']:.1f}",
            f"{figures['cpu_us']:.1f}",
            f"{measured.map_mib:,.0f} MiB",
            f"{measured.merge_mib:,.0f} MiB",
            f"{measured.shard_mib:.1f} MiB",
            f"{measured.merged_mib:.1f} MiB",
        )
    return table


def summary(point: Point, measured: Measured) -> dict[str, Any]:
    """A point as JSON types; `us` and `cpu_us` per activation, of map and merge together."""
    seconds = measured.map_seconds + measured.merge_seconds
    cpu_seconds = measured.map_cpu_seconds + measured.merge_cpu_seconds
    return {
        "bench": "evidence",
        "rows": point.rows,
        "shards": -(-point.rows // point.shard_rows),
        "us": round(1e6 * seconds / point.rows, 2),
        "cpu_us": round(1e6 * cpu_seconds / point.rows, 2),
        **{name: round(value, 2) for name, value in asdict(measured).items()},
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description="Cost of evidence as rows grow.")
    parser.add_argument("--threads", type=int, default=1, help="threads the encoder may use")
    parser.add_argument("--max", type=int, default=ROWS[-1], help="largest number of activations")
    asked = parser.parse_args()
    if asked.max < ROWS[0]:
        parser.error(f"--max must be at least {ROWS[0]}, not {asked.max}")
    return asked


if __name__ == "__main__":
    sys.exit(main())
