"""`make bench-growth`: what one activation costs as their number and the width grow, through the public `train_sae`.

Activations lie in shards on disk, as a collect step leaves them, and are trained on once (one epoch). Every point runs
in a process of its own, so that its peak memory is its own. The time is the whole call: measuring the normalisation,
training, the facts and the export. Shards of 10 million rows take 2.6 GB of disk. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.crew import ROOT, environment
from benchmarks.growth_point import Measured, Point
from benchmarks.machine import this_machine
from benchmarks.planted import Planted
from benchmarks.report import machine_lines, saying, today
from recsae.sae.shards import ActivationShard, write_shard

D, WIDTH, K = 64, 1024, 16
ROWS = (100_000, 1_000_000, 10_000_000)
WIDTHS = (1024, 2048, 4096, 8192, 16_384)
WIDTH_ROWS = 200_000
_SHARD_ROWS = 100_000


@dataclass(frozen=True)
class Outcome:
    """A point and what was measured there."""

    point: Point
    measured: Measured

    @property
    def us(self) -> float:
        """Microseconds per activation."""
        return 1e6 * self.measured.seconds / self.point.rows

    @property
    def cpu_us(self) -> float:
        """Microseconds of processor time per activation."""
        return 1e6 * self.measured.cpu_seconds / self.point.rows


def main() -> int:
    """Measures and prints."""
    asked = _arguments()
    rows = [count for count in ROWS if count <= asked.max]
    console = Console(width=150)
    cache = ROOT / ".cache" / "benchmarks"
    cache.mkdir(parents=True, exist_ok=True)
    for line in machine_lines(this_machine(), asked.threads, today()):
        console.print(line, highlight=False)
    with tempfile.TemporaryDirectory(dir=cache) as scratch, saying("writing shards") as say:
        folder = Path(scratch)
        write_shards(folder, max(*rows, WIDTH_ROWS), Planted(D, atoms=WIDTH // 2, active=K // 2))

        def outcome(count: int, width: int) -> Outcome:
            say(f"{count:,} activations, width {width:,}")
            point = Point(count, D, width, K)
            return Outcome(point, measure(point, folder, asked.threads))

        by_rows = [outcome(count, WIDTH) for count in rows]
        by_width = [outcome(WIDTH_ROWS, width) for width in WIDTHS]
    console.print(growth_table(f"Activations (width {WIDTH:,}, k = {K}, d = {D}, one epoch)", by_rows))
    console.print(growth_table(f"Width ({WIDTH_ROWS:,} activations)", by_width))
    sys.stdout.write(json.dumps(summary(by_rows, by_width)) + "\n")
    return 0


def write_shards(folder: Path, rows: int, planted: Planted) -> None:
    """Shards of up to 100,000 rows, one in memory at a time."""
    facts = {"model": "planted", "dataset": "planted"}
    for number, at in enumerate(range(0, rows, _SHARD_ROWS)):
        count = min(_SHARD_ROWS, rows - at)
        x = np.concatenate(list(planted.blocks(count, first=number * planted.blocks_of(_SHARD_ROWS))))
        subject = np.arange(at, at + count, dtype=np.int32)
        shard = ActivationShard(x, subject, np.zeros(count, np.int32), np.zeros(count, np.int32))
        write_shard(folder, f"{number:05d}", shard, facts)


def measure(point: Point, folder: Path, threads: int) -> Measured:
    """In a new process."""
    command = [sys.executable, "-m", "benchmarks.growth_point", json.dumps(asdict(point)), str(folder)]
    run = subprocess.run(command, cwd=ROOT, env=environment(threads), stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(run.stdout.splitlines()[-1]))


def growth_table(title: str, outcomes: list[Outcome]) -> Table:
    """One row per point."""
    table = Table(title=title, title_justify="left")
    for heading in (
        "activations",
        "width",
        "seconds",
        "us / activation",
        "CPU us",
        "peak memory",
        "peak resident",
        "train FVU",
    ):
        table.add_column(heading, justify="right")
    for outcome in outcomes:
        point, measured = outcome.point, outcome.measured
        memory = f"{measured.anonymous_mib:,.0f} MiB" if measured.anonymous_mib else "-"
        table.add_row(
            *(
                f"{point.rows:,}",
                f"{point.width:,}",
                f"{measured.seconds:,.1f}",
                f"{outcome.us:,.1f}",
                f"{outcome.cpu_us:,.1f}",
            ),
            *(memory, f"{measured.resident_mib:,.0f} MiB", f"{measured.fvu:.4f}"),
        )
    return table


def summary(by_rows: list[Outcome], by_width: list[Outcome]) -> dict[str, Any]:
    """The last line; `ratio_last` is the cost of an activation at the largest number over that at a tenth of it."""
    last, before = by_rows[-1], by_rows[-2] if len(by_rows) > 1 else None
    return {
        "bench": "growth",
        "rows": {str(outcome.point.rows): _values(outcome) for outcome in by_rows},
        "width": {str(outcome.point.width): _values(outcome) for outcome in by_width},
        "ratio_last": round(last.us / before.us, 3) if before else None,
        "ratio_last_cpu": round(last.cpu_us / before.cpu_us, 3) if before else None,
    }


def _values(outcome: Outcome) -> dict[str, Any]:
    measured = outcome.measured
    return {
        "us": round(outcome.us, 2),
        "cpu_us": round(outcome.cpu_us, 2),
        "peak_rss_mib": round(measured.resident_mib),
        "peak_memory_mib": round(measured.anonymous_mib) if measured.anonymous_mib else None,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-growth", description="Cost of SAE training as its inputs grow.")
    parser.add_argument("--threads", type=int, default=1, help="threads training may use")
    parser.add_argument("--max", type=int, default=ROWS[-1], help="largest number of activations")
    asked = parser.parse_args()
    if asked.max < ROWS[0]:
        parser.error(f"--max must be at least {ROWS[0]}, not {asked.max}")
    return asked


if __name__ == "__main__":
    sys.exit(main())
