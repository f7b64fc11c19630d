"""Time from an acknowledged policy write to the first steered response: `python -m benchmarks.propagation`.

The interpreter on a real state server that has every write on disk before it answers, and 1, 4 and 16 replicas of the
recommender in processes of their own, each asked 10 times a second; 30 policies for everyone are made and deleted at
each size. Asking so seldom adds up to 100 ms; when the plan itself was there lies between the two numbers given. The
last line is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime

from benchmarks.machine import this_machine
from benchmarks.propagation.fleet import Fleet
from benchmarks.propagation.writes import measure
from benchmarks.serving.latencies import LatencyHistogram

_RATE = 10.0


def main() -> None:
    """Prints a table, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.propagation")
    parser.add_argument("--quick", action="store_true", help="1 and 4 replicas, ten writes each")
    given = parser.parse_args()
    sizes, writes = ((1, 4), 5) if given.quick else ((1, 4, 16), 30)
    machine, load = this_machine(), os.getloadavg()[0]
    _say(f"{machine.processor}, {machine.cores} cores; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; load average {load:.1f}")
    _say("ms from the acknowledged write, over replicas and writes")
    _say("replicas  writes   first response that obeys: p50, p99, most   last that did not was asked for: p50, p99")
    found = {}
    for replicas in sizes:
        with Fleet(replicas) as fleet:
            found[replicas] = delays = measure(fleet, writes, _RATE)
        first, lower = _ms(delays.first), _ms(delays.lower)
        failed = f"   {delays.failed} REQUESTS FAILED" if delays.failed else ""
        most = max(delays.first) * 1e3
        _say(
            f"{replicas:8} {2 * writes:7} {first[0]:29.1f} {first[1]:8.1f} {most:8.1f} {lower[0]:32.1f} {lower[1]:8.1f}"
            f"{failed}"
        )
    result = {
        "bench": "propagation",
        "p99_ms": {str(replicas): _ms(delays.first)[1] for replicas, delays in found.items()},
        "p50_ms": {str(replicas): _ms(delays.first)[0] for replicas, delays in found.items()},
        "failed": sum(delays.failed for delays in found.values()),
        "machine": machine.processor,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    _say(json.dumps(result))


def _ms(seconds: list[float]) -> tuple[float, float]:
    """(p50, p99) in ms."""
    histogram = LatencyHistogram()
    for one in seconds:
        histogram.record(one)
    return round(histogram.quantile(0.5) * 1e3, 1), round(histogram.quantile(0.99) * 1e3, 1)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
