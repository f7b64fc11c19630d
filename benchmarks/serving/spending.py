"""Processor time per call: servers loaded in turn at a fixed concurrency, forwards and back, round after round.

Closed loop on purpose: it decides the batch sizes, and time per call does not depend on how fast calls come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.serving.crew import Crew, run_direct
from benchmarks.serving.h2load import H2load
from benchmarks.serving.pairs import Median, median_interval, palindrome, ratio_interval
from benchmarks.serving.processes import Served

# What a call leaves behind it, counters and log lines, is done by then.
_SETTLE_S = 0.005


@dataclass
class Spent:
    """Processor time per call of each variant in us, one value a round, and the mean batch of each that has one."""

    in_flight: int
    us: dict[str, list[float]] = field(default_factory=dict)
    batch: dict[str, float] = field(default_factory=dict)

    def median(self, name: str) -> Median:
        """Median over rounds with its interval."""
        return median_interval(self.us[name])

    def ratio(self, name: str, to: str) -> Median:
        """Median of the ratios within rounds."""
        return ratio_interval(self.us[name], self.us[to])


def spend(
    crew: Crew, load: H2load, *, in_flight: int, rounds: int, calls: int, direct_batches: tuple[int, ...] = ()
) -> Spent:
    """Rounds over all servers of the crew; those of `direct_batches` call `ort` in batches of that size."""
    cases: dict[str, tuple[Served, Callable[[bytes], int]]] = {}
    for name, served in crew.servers.items():
        if name == "ort":
            for batch in direct_batches:
                cases[f"ort_{batch}"] = served, _direct(served, batch, max(2, calls // batch))
        else:
            cases[name] = served, _called(load, served, calls, in_flight, crew.load_core)
    spent = Spent(in_flight, {name: [] for name in cases})
    before = {name: _counted(served) for name, (served, _) in cases.items()}
    for number in range(-1, rounds):  # the first round warms up
        request, used = crew.request(number + 1), dict.fromkeys(cases, 0.0)
        for name in palindrome(list(cases)):
            served, run = cases[name]
            start = served.cpu_s()
            done = run(request)
            time.sleep(_SETTLE_S)
            used[name] += (served.cpu_s() - start) / done / 2
        if number >= 0:
            for name, seconds in used.items():
                spent.us[name].append(seconds * 1e6)
    for name, (served, _) in cases.items():
        served_calls, batches, failed = (
            after - earlier for after, earlier in zip(_counted(served), before[name], strict=True)
        )
        if failed:  # h2load looks at HTTP's status only, and a failed call is a cheap one
            raise RuntimeError(f"{name} failed {failed:.0f} calls; its log says why")
        if batches:
            spent.batch[name] = served_calls / batches
    return spent


def _called(load: H2load, served: Served, calls: int, in_flight: int, core: int | None) -> Callable[[bytes], int]:
    def run(request: bytes) -> int:
        load.run(served.port, request, calls=calls, in_flight=in_flight, core=core)
        return calls

    return run


def _direct(served: Served, batch: int, calls: int) -> Callable[[bytes], int]:
    def run(_request: bytes) -> int:
        run_direct(served, batch, calls)
        return batch * calls

    return run


def _counted(served: Served) -> tuple[float, float, float]:
    """(requests computed, batches, calls not answered well) so far."""
    if not served.metrics_port:
        return 0.0, 0.0, 0.0
    calls = "recsae_rpc_requests_total"
    return (
        served.metric("recsae_batch_size_sum"),
        served.metric("recsae_batch_size_count"),
        served.metric(calls) - served.metric(calls, 'code="OK"'),
    )


def best(costs: Mapping[str, Median]) -> str:
    """The name with the lowest median."""
    return min(costs, key=lambda name: costs[name].median)
