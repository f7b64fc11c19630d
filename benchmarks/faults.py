"""`make bench-faults`: what recommendations do while parts of the platform die, hang, lie or come back.

A real Redis, interpreter and recommenders run as processes on this machine, steering by plans and by RPC, some of them
behind a man in the middle. Under an open load, and while policies are made and deleted, one part after the other is
broken and mended. Every single answer is judged: its list must be the bare one bit for bit, with a reason, or that
under the policies its receipt names, which must be in force. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.crew import ROOT
from benchmarks.fault_judge import Verdict, judge
from benchmarks.fault_load import STANDING, Load, Operator
from benchmarks.fault_platform import PLAN_MAX_AGE_S, STATE_MAX_AGE_S, Platform, Service, started_platform
from benchmarks.fault_proxy import Mischief, Proxy
from benchmarks.fault_world import USERS, Reference, World, publish_world
from benchmarks.machine import this_machine
from benchmarks.report import machine_lines, saying, today

BOUND_S = STATE_MAX_AGE_S + PLAN_MAX_AGE_S + 1.0
"""Replicas that hear nothing go on with their plan until it is too old; those that hear are far faster."""
_RECOVERY_S = 40.0
_OF_ITS_OWN = USERS[6:]


@dataclass(frozen=True)
class Crew:
    """The platform with the man in the middle, and the recommenders that a scenario asks."""

    platform: Platform
    proxy: Proxy
    recommenders: dict[str, Service]


Fault = Callable[[Crew, float], None]
"""Breaks something for so many seconds and mends it."""


@dataclass(frozen=True)
class Scenario:
    """What is broken; `clocks` = the recommenders asked are those whose clocks are off."""

    name: str
    fault: Fault
    clocks: bool = False


@dataclass(frozen=True)
class Outcome:
    """A scenario's verdict and the seconds from the mending to a new policy being applied everywhere."""

    name: str
    verdict: Verdict
    recovery_s: float
    flipped: int = 0


def killed(crew: Crew, seconds: float) -> None:
    """The interpreter dies without a word, and is started again."""
    crew.platform.interpreter.send(signal.SIGKILL)
    time.sleep(seconds)
    crew.platform.interpreter.start()
    crew.platform.interpreter.wait_until_ready()


def paused(crew: Crew, seconds: float) -> None:
    """The interpreter's process stands still: connections stay open and nothing is answered."""
    crew.platform.interpreter.send(signal.SIGSTOP)
    time.sleep(seconds)
    crew.platform.interpreter.send(signal.SIGCONT)


def slow(crew: Crew, seconds: float) -> None:
    """Answers pass the man in the middle 0.2 s late; the interpreter itself stands still half of the time."""
    crew.proxy.mischief = Mischief(delay_s=0.2)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        crew.platform.interpreter.send(signal.SIGSTOP)
        time.sleep(0.1)
        crew.platform.interpreter.send(signal.SIGCONT)
        time.sleep(0.1)
    crew.proxy.mischief = Mischief()


def wrong_version(crew: Crew, seconds: float) -> None:
    """A triple of another model version is promoted; half way through, the man in the middle relabels answers too."""
    crew.platform.promote(crew.platform.world.elsewhere)
    time.sleep(seconds / 2)
    crew.platform.promote(crew.platform.world.triples[0])
    crew.proxy.mischief = Mischief(lie=True)
    time.sleep(seconds / 2)
    crew.proxy.mischief = Mischief()


def redis_killed(crew: Crew, seconds: float) -> None:
    """The state server dies without a word, and is started again on its file."""
    crew.platform.state.send(signal.SIGKILL)
    time.sleep(seconds)
    crew.platform.state.start()
    crew.platform.wait_for_state()


def corrupted(crew: Crew, seconds: float) -> None:
    """One bit is turned over in half of the plans, heartbeats and encoders that pass the man in the middle."""
    crew.proxy.mischief = Mischief(flip=0.5)
    time.sleep(seconds)
    crew.proxy.mischief = Mischief()


def nothing(_crew: Crew, seconds: float) -> None:
    """Nothing but the clocks is wrong."""
    time.sleep(seconds)


SCENARIOS = (
    Scenario("interpreter killed", killed),
    Scenario("interpreter paused", paused),
    Scenario("interpreter slow", slow),
    Scenario("wrong version", wrong_version),
    Scenario("Redis killed", redis_killed),
    Scenario("answers corrupted", corrupted),
    Scenario("clocks off by an hour", nothing, clocks=True),
)


def main() -> int:
    """Runs every scenario and prints; ends with 1 when anything was not as it has to be."""
    asked = _arguments()
    console = Console(width=170)
    for line in machine_lines(this_machine(), 1, today()):
        console.print(line, highlight=False)
    cache = ROOT / ".cache" / "benchmarks"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch, saying("making a small world") as say:
        chosen = [one for one in SCENARIOS if asked.only in one.name]
        outcomes = list(run(chosen, Path(scratch), seconds=asked.seconds, rate=asked.rate, say=say))
    console.print(table(outcomes))
    for outcome in outcomes:
        for example in outcome.verdict.examples:
            console.print(f"{outcome.name}: {example}", highlight=False)
    sys.stdout.write(json.dumps(summary(outcomes)) + "\n")
    return int(any(one.verdict.failed or one.verdict.wrong or one.verdict.unexplained for one in outcomes))


def run(
    scenarios: Sequence[Scenario],
    folder: Path,
    *,
    seconds: float,
    rate: float,
    say: Callable[[str], None] = lambda _words: None,
) -> Iterator[Outcome]:
    """The outcome of each scenario, `seconds` of fault under `rate` requests a second to each recommender."""
    world = publish_world(folder)
    reference = Reference(world)
    with _crew(world, folder, clocks=any(one.clocks for one in scenarios)) as (crew, clocked):
        for scenario in scenarios:
            say(scenario.name)
            yield _outcome(scenario, clocked if scenario.clocks else crew, reference, seconds, rate)


def _outcome(scenario: Scenario, crew: Crew, reference: Reference, seconds: float, rate: float) -> Outcome:
    operator = Operator(crew.platform.interpreter.port)
    load = Load({name: one.port for name, one in crew.recommenders.items()}, reference.world, rate)
    flipped = crew.proxy.flipped
    standing = operator.add(_OF_ITS_OWN[:1], STANDING, 600, patient=True)
    load.start()
    if load.wait_until(tuple(crew.recommenders), standing, _RECOVERY_S) == float("inf"):
        raise RuntimeError(f"{scenario.name}: the platform does not steer before anything is broken")
    operator.start()
    time.sleep(min(1.0, seconds / 2))
    scenario.fault(crew, seconds)
    recovery_s = _recovery(crew, operator, load)
    operator.stop()
    load.stop()
    verdict = judge(load.asked, operator.written, reference, BOUND_S)
    operator.close()
    return Outcome(scenario.name, verdict, recovery_s, crew.proxy.flipped - flipped)


def _recovery(crew: Crew, operator: Operator, load: Load) -> float:
    begun = time.monotonic()
    after = operator.add(_OF_ITS_OWN[1:], STANDING, 600, patient=True)
    waited = load.wait_until(tuple(crew.recommenders), after, _RECOVERY_S)
    return waited if waited == float("inf") else time.monotonic() - begun


@contextmanager
def _crew(world: World, folder: Path, *, clocks: bool) -> Iterator[tuple[Crew, Crew]]:
    """The recommenders of every scenario, and those whose clocks are off."""
    with started_platform(world, folder) as platform:
        proxy = Proxy(platform.interpreter.port)
        try:
            direct, behind = platform.interpreter.port, proxy.port
            usual = {
                f"{steering} {way}": platform.recommender(f"{steering}-{way}", port, steering)
                for steering in ("plan", "rpc")
                for way, port in (("direct", direct), ("proxied", behind))
            }
            off = {
                f"{steering} {ahead:+d} h": platform.recommender(
                    f"{steering}{ahead:+d}h", direct, steering, 3600 * ahead
                )
                for steering, ahead in ((("plan", 1), ("plan", -1), ("rpc", 1)) if clocks else ())
            }
            for service in (*usual.values(), *off.values()):
                service.wait_until_ready()
            yield Crew(platform, proxy, usual), Crew(platform, proxy, off)
        finally:
            proxy.close()


def table(outcomes: Sequence[Outcome]) -> Table:
    """For people."""
    made = Table(title="Recommendations while parts of the platform fail")
    made.add_column("Fault")
    for column in ("requests", "failed", "wrongly steered", "unexplained", "steered", "steered again after s"):
        made.add_column(column, justify="right")
    made.add_column("answers by reason")
    for one in outcomes:
        verdict = one.verdict
        counts = (verdict.requests, verdict.failed, verdict.wrong, verdict.unexplained, verdict.steered)
        reasons = ", ".join(f"{reason} {count}" for reason, count in verdict.reasons.most_common())
        made.add_row(one.name, *(f"{count:,}" for count in counts), f"{one.recovery_s:.1f}", reasons)
    return made


def summary(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """The last line: sums, and each scenario."""
    verdicts = [one.verdict for one in outcomes]
    return {
        "bench": "faults",
        "requests": sum(one.requests for one in verdicts),
        "failed": sum(one.failed for one in verdicts),
        "wrongly_steered": sum(one.wrong for one in verdicts),
        "unexplained": sum(one.unexplained for one in verdicts),
        "scenarios": {
            one.name: {
                "requests": one.verdict.requests,
                "failed": one.verdict.failed,
                "wrongly_steered": one.verdict.wrong,
                "unexplained": one.verdict.unexplained,
                "steered": one.verdict.steered,
                "recovery_s": None if one.recovery_s == float("inf") else round(one.recovery_s, 2),
                "flipped": one.flipped,
                "reasons": dict(one.verdict.reasons.most_common()),
            }
            for one in outcomes
        },
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each fault")
    parser.add_argument("--rate", type=float, default=25.0, help="requests a second to each of the recommenders")
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
