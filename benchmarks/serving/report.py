"""The serving benchmark's tables for people and its last line for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from benchmarks.machine import this_machine
from benchmarks.serving.pairs import Median
from benchmarks.serving.processes import cores
from benchmarks.serving.stages import Found
from benchmarks.serving.variants import ADD, BARE, ECHO, NO_LIVE, RPC, VARIANTS


def heading() -> Iterator[str]:
    """Machine, date, and how busy it is with other things."""
    machine, load = this_machine(), os.getloadavg()[0]
    yield f"{machine.processor}, {machine.cores} cores; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; load average {load:.1f}"
    server, other = cores()
    if server is None:
        yield "servers and load share their cores: there is no second one, or processes cannot be pinned here"
    else:
        yield f"servers on core {server}, interpreters and load on core {other}"


def tables(found: Found) -> Iterator[str]:
    """Processor time per concurrency, then throughput and latencies, of one catalogue size."""
    yield f"\n## {found.items:,} items; echo server with {found.echo_threads} threads"
    yield f"lists without and with the steering code, no policy live: {'identical' if found.identical else 'DIFFERENT'}"
    for spent in found.spent:
        rounds = len(next(iter(spent.us.values())))
        yield f"\n{spent.in_flight} in flight, {rounds} rounds: CPU us a call, mean batch, over the bare server [95 %]"
        yield f"  {'':42} {'':9} {'':6}   in rounds of all{'':9} as ABBA of two"
        for name in spent.us:
            batch = f"{spent.batch[name]:6.1f}" if name in spent.batch else "     -"
            pair = found.pairs.get((name, spent.in_flight), "")
            yield f"  {_says(name):42} {spent.median(name).median:9.1f} {batch}   {spent.ratio(name, BARE)}   {pair}"
        ort = largest_batch(found)
        yield f"  unsteered over (echo + {ort}): {spent.ratio(NO_LIVE, ECHO, ort)}"
    unsteered = ", ".join(f"{name} {share:.1%}" for name, share in found.steered.items() if share < 1)
    yield f"\nlists steered where a policy matches: {unsteered or 'all'}"
    yield "\ncalls/s at saturation; ms at this rate, open loop, Poisson: p50, p99 (p99 of the client's own lag)"
    for name, one in found.latencies.items():
        failed = f"  FAILED: {dict(one.failed)}" if one.failed else ""
        times = f"{one.p50 * 1e3:8.2f} {one.p99 * 1e3:8.2f}   ({one.lag_p99 * 1e3:.2f})"
        yield f"  {_says(name):42} {found.saturation(name):9.0f} {one.rate:8.0f} {times}{failed}"


def last_line(sizes: Sequence[Found], match_us: float) -> str:
    """The result as JSON; what is not measured is null. The first size is the one judged."""
    first = sizes[0]
    most, ort = first.most, largest_batch(first)

    def rps(name: str) -> float | None:
        return round(first.saturation(name)) if name in most.us else None

    def cpu(name: str) -> float:
        return round(most.median(name).median, 1)

    result = {
        "bench": "serving",
        "echo_rps": rps(ECHO),
        "recommend_rps": rps(NO_LIVE),
        "steered_in_process_rps": rps(ADD),
        "steered_rpc_rps": rps(RPC),
        "cpu_us": {"echo": cpu(ECHO), "ort_batched": cpu(ort), "unsteered": cpu(NO_LIVE), "steered": cpu(ADD)},
        "match_1000_us": round(match_us, 1),
        "in_flight": most.in_flight,
        "ratios": _ratios(first),
        "sizes": {str(one.items): _size(one) for one in sizes},
        "machine": this_machine().processor,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    return json.dumps(result)


def largest_batch(found: Found) -> str:
    """Name of the graphs alone in their largest batch, where a user costs least: the hardest to come near to."""
    return max((name for name in found.most.us if name.startswith("ort_")), key=lambda name: int(name[4:]))


def _ratios(found: Found) -> dict[str, dict[str, list[float]]]:
    """Median, lower and upper end of each ratio that is judged, by how many are in flight."""
    ort = largest_batch(found)
    ratios = {
        "unsteered_over_echo_and_ort": {
            str(one.in_flight): _numbers(one.ratio(NO_LIVE, ECHO, ort)) for one in found.spent
        }
    }
    for (name, in_flight), ratio in found.pairs.items():
        ratios.setdefault(f"{name}_over_bare", {})[str(in_flight)] = _numbers(ratio)
    return ratios


def _size(found: Found) -> dict[str, object]:
    most = found.most
    return {
        "identical": found.identical,
        "cpu_us": {name: round(most.median(name).median, 1) for name in most.us},
        "batch": {name: round(size, 1) for name, size in most.batch.items()},
        "rps": {name: round(found.saturation(name), 1) for name in found.latencies},
        "steered_share": {name: round(share, 4) for name, share in found.steered.items()},
        "p50_ms": {name: round(one.p50 * 1e3, 2) for name, one in found.latencies.items()},
        "p99_ms": {name: round(one.p99 * 1e3, 2) for name, one in found.latencies.items()},
    }


def _numbers(ratio: Median) -> list[float]:
    return [round(value, 3) for value in (ratio.median, ratio.low, ratio.high)]


def _says(name: str) -> str:
    if name in VARIANTS:
        return VARIANTS[name].says
    return "echo server" if name == ECHO else f"onnxruntime alone, batches of {name.removeprefix('ort_')}"
