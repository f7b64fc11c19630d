"""What `make bench-sae` prints: tables for people and one line of JSON for programs. Not here: measuring."""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.contenders.roster import OURS_TORCH
from benchmarks.floor import Floor
from benchmarks.machine import Machine
from benchmarks.race import Result
from benchmarks.shapes import Shape


def fastest(results: Sequence[Result]) -> Result | None:
    """The one of highest median speed; None when there is none."""
    timed = [result for result in results if result.per_round and not result.failure]
    return max(timed, key=lambda result: result.speed, default=None)


def public(results: Sequence[Result]) -> list[Result]:
    """What others have published."""
    return [result for result in results if result.entry.public]


def own(results: Sequence[Result]) -> list[Result]:
    """RecSAE's."""
    return [result for result in results if not result.entry.public]


def exact(results: Sequence[Result]) -> list[Result]:
    """fp32 throughout."""
    return [result for result in results if result.entry.exact]


def summary(shape_results: Mapping[str, Sequence[Result]], floors: Mapping[str, Floor]) -> dict[str, Any]:
    """The last line. Speeds in activations per second; null where nothing was measured.

    "ours" and "best_public" are the fastest of each side, whatever their arithmetic; "_fp32" keeps both sides to exact
    fp32. "floor_share" is of our fastest exact fp32 path. "cores" is what the contenders had of the processor on
    average: under nine tenths of the threads, others were using the machine and the run should be repeated.
    """
    return {
        "bench": "sae",
        **{name: _shape_summary(results, floors[name]) for name, results in shape_results.items()},
    }


def _shape_summary(results: Sequence[Result], floor: Floor) -> dict[str, Any]:
    ours, theirs = fastest(own(results)), fastest(public(results))
    ours_fp32, theirs_fp32 = fastest(exact(own(results))), fastest(exact(public(results)))
    return {
        "ours": _speed(ours),
        "best_public": _speed(theirs),
        "ratio": _ratio(ours, theirs),
        "fvu_ours": _fvu(ours),
        "fvu_public": _fvu(theirs),
        "floor_share": round(floor.share_of(ours_fp32.speed), 3) if ours_fp32 else None,
        "ours_name": ours.entry.name if ours else None,
        "public_name": theirs.entry.name if theirs else None,
        "ours_fp32": _speed(ours_fp32),
        "best_public_fp32": _speed(theirs_fp32),
        "ratio_fp32": _ratio(ours_fp32, theirs_fp32),
        "ours_torch": _speed(next((result for result in results if result.entry.name == OURS_TORCH), None)),
        "fvu_best_public": min(filter(None, map(_fvu, public(results))), default=None),
        "cores": _mean([result.core_share for result in results if result.per_round]),
        "act_s": {result.entry.name: _speed(result) for result in results if result.per_round},
    }


def contenders_table(shape: Shape, results: Sequence[Result]) -> Table:
    """One row per contender."""
    table = Table(title=f"{shape.name}: d = {shape.d}, width = {shape.width}, k = {shape.k}", title_justify="left")
    table.add_column("contender", no_wrap=True)
    for heading in ("act/s, median", "min .. max", "cores", "ratio", "FVU", "dead", "rate"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("notes")
    best = fastest(public(results))
    for result in results:
        if not result.per_round:
            table.add_row(result.entry.name, *["-"] * 7, result.failure)
            continue
        quality = result.quality
        table.add_row(
            result.entry.name,
            f"{result.speed:,.0f}",
            f"{min(result.per_round):,.0f} .. {max(result.per_round):,.0f}",
            f"{result.core_share:.2f}",
            f"{result.speed / best.speed:.2f}" if best else "-",
            f"{quality.fvu:.4f}" if quality else "-",
            f"{quality.dead:.1%}" if quality else "-",
            f"{result.rate:g}" if quality else "-",
            "; ".join(filter(None, _notes(result, best))),
        )
    return table


def floor_table(floors: Mapping[str, Floor], shape_results: Mapping[str, Sequence[Result]]) -> Table:
    """The parts of the floor beside what our exact path takes."""
    table = Table(title="Floor of an exact fp32 step, us per activation", title_justify="left")
    for heading in ("shape", "encoder", "sparse: FLOP", "sparse: bytes", "optimiser", "floor", "ours, fp32", "share"):
        table.add_column(heading, justify="right")
    for name, floor in floors.items():
        ours = fastest(exact(own(shape_results[name])))
        parts = (floor.encoder_us, floor.sparse_flops_us, floor.sparse_bytes_us, floor.optimiser_us, floor.total_us)
        measured = (f"{1e6 / ours.speed:.2f}", f"{floor.share_of(ours.speed):.2f}") if ours else ("-", "-")
        table.add_row(name, *(f"{part:.2f}" for part in parts), *measured)
    return table


@contextlib.contextmanager
def saying(about: str) -> Iterator[Callable[[str], None]]:
    """Says what is being done: a spinner on a terminal, a line each elsewhere. Never on standard output."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(about)
        yield console.print
        return
    with console.status(about) as status:
        yield status.update


def today() -> datetime.date:
    """In UTC."""
    return datetime.datetime.now(datetime.UTC).date()


def machine_lines(machine: Machine, threads: int, day: datetime.date) -> list[str]:
    """Where and when."""
    return [
        f"{machine.processor}, {machine.cores} cores, {threads} thread{'s' * (threads > 1)} used, {day.isoformat()}",
        f"CPU features: {' '.join(machine.features) or 'unknown'}",
    ]


def _notes(result: Result, best: Result | None) -> list[str]:
    notes = [result.flags, result.failure]
    if result is best:
        notes.append("fastest public")
    return notes


def _speed(result: Result | None) -> int | None:
    return round(result.speed) if result and result.per_round else None


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 2) if values else None


def _ratio(ours: Result | None, theirs: Result | None) -> float | None:
    return round(ours.speed / theirs.speed, 2) if ours and theirs else None


def _fvu(result: Result | None) -> float | None:
    if result is None or result.quality is None or not math.isfinite(result.quality.fvu):
        return None
    return round(result.quality.fvu, 5)
