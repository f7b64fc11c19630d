"""Processor time per call: servers loaded in turn at a fixed concurrency, forwards and back, round after round.

Closed loop on purpose: it decides the batch sizes, and time per call does not depend on how fast calls come.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.serving.closed_loop import Load
from benchmarks.serving.crew import Crew, run_direct
from benchmarks.serving.pairs import Median, median_interval, palindrome, ratio_interval
from benchmarks.serving.processes import Served

# What a call leaves behind it, counters and log lines, is done by then.
_SETTLE_S = 0.005


@dataclass
class Spent:
    """Of each variant, one value a round: `us` of processor time per call, and calls per second.

    `batch` is the mean batch of those that have one.
    """

    in_flight: int
    us: dict[str, list[float]]
    rps: dict[str, list[float]]
    batch: dict[str, float] = field(default_factory=dict)

    def median(self, name: str) -> Median:
        """Median over rounds with its interval."""
        return median_interval(self.us[name])

    def ratio(self, name: str, *to: str) -> Median:
        """Median of the ratios within rounds, to one variant or to the sum of several."""
        below = [sum(values) for values in zip(*(self.us[one] for one in to), strict=True)]
        return ratio_interval(self.us[name], below)

    def throughput(self, name: str) -> float:
        """Calls per second: the median over rounds."""
        return median_interval(self.rps[name]).median


def spend(
    crew: Crew,
    load: Load,
    *,
    in_flight: int,
    rounds: int,
    calls: int,
    direct_batches: Sequence[int] = (),
    names: Sequence[str] = (),
) -> Spent:
    """Rounds over the servers of the crew, or those of some `names`; `ort` runs batches of each size given."""
    cases: dict[str, _Case] = {}
    for name in names or crew.servers:
        served = crew.servers[name]
        if name == "ort":
            for batch in direct_batches:
                cases[f"ort_{batch}"] = _Direct(served, batch, max(2, calls // batch))
        else:
            cases[name] = _Called(served, load, calls, in_flight, crew.load_core)
    spent = Spent(in_flight, {name: [] for name in cases}, {name: [] for name in cases})
    before = {name: _counted(case.served) for name, case in cases.items()}
    for number in range(-1, rounds):  # the first round warms up
        request = crew.request(number + 1)
        used, took = dict.fromkeys(cases, 0.0), dict.fromkeys(cases, 0.0)
        for name in palindrome(list(cases)):
            case = cases[name]
            start = case.served.cpu_s()
            took[name] += case.run(request)
            time.sleep(_SETTLE_S)
            used[name] += case.served.cpu_s() - start
        if number >= 0:
            for name, case in cases.items():
                spent.us[name].append(used[name] / (2 * case.done) * 1e6)
                spent.rps[name].append(2 * case.done / took[name])
    for name, case in cases.items():
        served_calls, batches, failed = (
            after - earlier for after, earlier in zip(_counted(case.served), before[name], strict=True)
        )
        if failed:  # h2load looks at HTTP's status only, and a failed call is a cheap one
            raise RuntimeError(f"{name} failed {failed:.0f} calls; its log says why")
        if batches:
            spent.batch[name] = served_calls / batches
    return spent


@dataclass(frozen=True)
class _Called:
    """A server called by h2load."""

    served: Served
    load: Load
    done: int
    in_flight: int
    core: int | None

    def run(self, request: bytes) -> float:
        return self.load.run(self.served.port, request, calls=self.done, in_flight=self.in_flight, core=self.core)


@dataclass(frozen=True)
class _Direct:
    """onnxruntime alone, `calls` batches of `batch` users."""

    served: Served
    batch: int
    calls: int

    @property
    def done(self) -> int:
        return self.batch * self.calls

    def run(self, _request: bytes) -> float:
        start = time.perf_counter()
        run_direct(self.served, self.batch, self.calls)
        return time.perf_counter() - start


_Case = _Called | _Direct


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
