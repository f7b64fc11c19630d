"""The order of the measurements: who is asked for what, when. Not here: processes (`crew`), output (`report`).

Throughput: every contender is loaded and warmed up, then rounds go by in which each takes a few steps, one at a time
and starting with another one each round, so that whatever else the machine does hits all alike. Loss: a quarter of the
stream at every rate of the grid, then the whole stream at the best, from the beginning, with a batch of its own.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.contenders.contract import Task
from benchmarks.contenders.roster import Entry
from benchmarks.crew import ContenderError, Times, Worker
from benchmarks.scores import Quality
from benchmarks.shapes import BATCH, LOSS_BATCH, RATES, Shape

_WARM_UP_STEPS = 2  # the first compiles and fills caches, the second allocates what it will go on using
_TURN_S = 0.6
_MAX_TURN_STEPS = 8
_TIMED_STEPS = 1000  # length of the schedule while timing; never reached


@dataclass(frozen=True)
class Plan:
    """How long to measure. A single rate skips the search for the best one."""

    rounds: int
    rates: Sequence[float]
    stream_share: float


FULL = Plan(rounds=7, rates=RATES, stream_share=1.0)
QUICK = Plan(rounds=3, rates=RATES[1:2], stream_share=0.1)


@dataclass
class Result:
    """Of one contender at one shape. `failure` says why the rest is missing.

    `per_round`: activations per second by the clock. `core_share`: processor time over clock time of the timed steps,
    the number of threads on an idle machine; less when others used the cores.
    """

    entry: Entry
    flags: str = ""
    per_round: list[float] = field(default_factory=list)
    core_share: float = math.nan
    quality: Quality | None = None
    rate: float = math.nan
    failure: str = ""

    @property
    def speed(self) -> float:
        """Median of the rounds, in activations per second; nan without any."""
        return statistics.median(self.per_round) if self.per_round else math.nan


@dataclass(frozen=True)
class Data:
    """Files of rows that every worker maps."""

    stream: Path
    held_out: Path


def race(workers: Sequence[Worker], shape: Shape, data: Data, plan: Plan, say: Callable[[str], None]) -> list[Result]:
    """Speed and quality of every contender at one shape, in the order of `workers`."""
    lanes = [_Lane(worker, shape, data) for worker in workers]
    for lane in lanes:
        say(f"{shape.name}: warming up {lane.result.entry.name}")
        lane.attempt(lane.warm_up)
    for number in range(plan.rounds):
        say(f"{shape.name}: throughput, round {number + 1} of {plan.rounds}")
        at = number % max(1, len(lanes))
        for lane in [*lanes[at:], *lanes[:at]]:
            lane.attempt(lane.take_turn)
    for lane in lanes:
        say(f"{shape.name}: loss of {lane.result.entry.name}")
        lane.attempt(partial(lane.train, plan))
    return [lane.result for lane in lanes]


class _Lane:
    """One contender at one shape. Its failure is a row of the table, not the end of the run."""

    def __init__(self, worker: Worker, shape: Shape, data: Data) -> None:
        self._worker, self._shape, self._data = worker, shape, data
        self._done = self._steps_a_turn = 0
        self._clock_s = self._worked_s = 0.0
        self.result = Result(worker.entry)

    def attempt(self, action: Callable[[], None]) -> None:
        """Runs it unless something failed before."""
        if self.result.failure:
            return
        try:
            action()
        except ContenderError as error:
            self.result.failure = str(error)

    def warm_up(self) -> None:
        """Loads it and finds out how many steps make a turn."""
        self.result.flags = self._load(BATCH, _TIMED_STEPS, 1e-3)
        last = self._step(_WARM_UP_STEPS, BATCH).seconds[-1]
        self._steps_a_turn = max(1, min(_MAX_TURN_STEPS, math.ceil(_TURN_S / last)))

    def take_turn(self) -> None:
        """A few timed steps."""
        times = self._step(self._steps_a_turn, BATCH)
        self.result.per_round.append(self._steps_a_turn * BATCH / sum(times.seconds))
        self._clock_s += sum(times.seconds)
        self._worked_s += sum(times.cpu_seconds)
        self.result.core_share = self._worked_s / self._clock_s

    def train(self, plan: Plan) -> None:
        """Finds the best rate and scores what it leads to."""
        steps = max(2, round(plan.stream_share * self._shape.stream) // LOSS_BATCH)
        self.result.rate = plan.rates[0]
        if len(plan.rates) > 1:
            tried = {rate: self._trained(rate, max(2, steps // 4)).fvu for rate in plan.rates}
            self.result.rate = min(tried, key=lambda rate: tried[rate] if math.isfinite(tried[rate]) else math.inf)
        self.result.quality = self._trained(self.result.rate, steps)

    def _trained(self, rate: float, steps: int) -> Quality:
        self._load(LOSS_BATCH, steps, rate)
        self._step(steps, LOSS_BATCH)
        return self._worker.score()

    def _load(self, batch: int, steps: int, rate: float) -> str:
        task = Task(self._shape.d, self._shape.width, self._shape.k, batch, steps, rate)
        self._done = 0
        return self._worker.load(task, self._data.stream, self._data.held_out)

    def _step(self, count: int, batch: int) -> Times:
        times = self._worker.step(self._done, count, batch)
        self._done += count
        return times
