"""One catalogue size from start to end: all variants at each concurrency, the pairs that are judged, latencies.

In a round over all variants two of them lie seconds apart; what is judged is measured again as ABBA of two alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.serving.arrivals import poisson_arrivals
from benchmarks.serving.closed_loop import Load
from benchmarks.serving.crew import Crew
from benchmarks.serving.identity import same_lists
from benchmarks.serving.open_loop import Latencies, drive
from benchmarks.serving.pairs import Median
from benchmarks.serving.spending import Spent, spend
from benchmarks.serving.variants import ADD, BARE, NO_LIVE, ORT, STEERED, start, steered_share
from benchmarks.serving.world import USERS, World

_HALF = 0.5
# The Python client of the open loop sends no more on time; only the echo server could take it.
_MOST_RATE = 2_500.0
# Judged whatever the batch; the others where batches are large.
_AT_EVERY_LOAD = (NO_LIVE, ADD)


@dataclass(frozen=True)
class Effort:
    """How long one catalogue size is looked at; `calls` by how many are in flight."""

    items: int
    variants: tuple[str, ...]
    rounds: int
    calls: Mapping[int, int]
    direct_batches: tuple[int, ...]
    latency_s: float
    pairs: int
    """Rounds of ABBA for each variant beside the bare server."""
    users_compared: int = 50


@dataclass(frozen=True)
class Found:
    """What one catalogue size gave. `identical`: the lists without and with the steering code, no policy live.

    `pairs`: (variant, calls in flight) -> its processor time over the bare server's. `steered`: share of the lists of
    each variant with policies that were steered.
    """

    items: int
    echo_threads: int
    identical: bool
    spent: tuple[Spent, ...]
    pairs: Mapping[tuple[str, int], Median]
    latencies: Mapping[str, Latencies]
    steered: Mapping[str, float]

    @property
    def most(self) -> Spent:
        """At the highest concurrency."""
        return self.spent[-1]

    def saturation(self, name: str) -> float:
        """Calls per second at the best concurrency."""
        return max(one.throughput(name) for one in self.spent)


def run(world: World, effort: Effort, load: Load) -> Found:
    """Starts the servers of one size, measures, ends them."""
    with Crew(world) as crew:
        threads = start(crew, effort.variants, load)
        identical = same_lists(crew, BARE, NO_LIVE, effort.users_compared)
        spent = tuple(
            spend(
                crew,
                load,
                in_flight=in_flight,
                rounds=effort.rounds,
                calls=calls,
                direct_batches=effort.direct_batches,
            )
            for in_flight, calls in effort.calls.items()
        )
        pairs = {
            (name, in_flight): spend(
                crew, load, in_flight=in_flight, rounds=effort.pairs, calls=calls // 2, names=(BARE, name)
            ).ratio(name, BARE)
            for in_flight, calls in effort.calls.items()
            for name in effort.variants
            if name != BARE and effort.pairs and (name in _AT_EVERY_LOAD or in_flight == max(effort.calls))
        }
        requests = [crew.request(user) for user in range(USERS)]
        latencies = {}
        for seed, (name, served) in enumerate(crew.servers.items()):
            if name != ORT:
                rate = min(_MOST_RATE, _HALF * max(one.throughput(name) for one in spent))
                latencies[name] = drive(served.port, requests, poisson_arrivals(rate, effort.latency_s, seed))
        steered = {name: steered_share(crew.servers[name]) for name in effort.variants if name in STEERED}
    return Found(world.items, threads, identical, spent, pairs, latencies, steered)
