"""What matching costs among 1,000 live policies of which 5 match: `python -m benchmarks.matching`.

Processor time per request, for several mixes of policies: over one attribute, over several, by users, by windows, by
rollouts. Each is asked for 512 different users, all new to the matcher, and once more as users who came back. Beside it
the same by trying every policy, which is what the outcome is checked against. The last line is the result as JSON.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.machine import this_machine
from recsae.pipeline.triples import Triple
from recsae.steering.matching import Matcher, SteerContext
from recsae.steering.plans import Plan, PlanOperation, PlanPolicy
from recsae.steering.policies import OperationKind, Scope, Window
from recsae.steering.receipts import PolicyRef
from recsae.steering.rollout import in_rollout
from recsae.steering.segments import AllOf, AnyOf, Attribute, Equals, In, Not, Range, Segment, evaluate

POLICIES, MATCHING = 1_000, 5
REQUESTS, ROUNDS = 512, 9
NOW = 1_800_000_000.0
ATTRIBUTES: dict[str, Attribute] = {
    **{"country": "DE", "surface": "home", "age": 34.0, "plan": "premium", "device": "tv", "new": False},
    **{"language": "de", "hour": 20.0},
}
Scopes = list[tuple[Scope, Window]]


def scopes(mix: str = "mixed") -> Scopes:
    """Scopes and windows of 1,000 policies of which 5 hold for any user `u-...` with `ATTRIBUTES` at `NOW`.

    Of `everyone at 0.5 %` about 5 hold, which ones depends on the user.
    """
    made = MIXES[mix](random.Random(0))
    assert len(made) == POLICIES
    return made


def thousand_policies(mix: str = "mixed", dim: int = 64) -> Plan:
    """A plan of 1,000 live policies, each adding one concept; see `scopes`."""
    rows = np.random.default_rng(0).standard_normal((POLICIES, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    policies = tuple(
        PlanPolicy(
            PolicyRef(f"p-{place}", 1),
            (PlanOperation(place, OperationKind.ADD, 0.05, row),),
            scope,
            window,
            salt=f"{place:016x}",
        )
        for place, ((scope, window), row) in enumerate(zip(scopes(mix), rows.astype(np.float32), strict=True))
    )
    return Plan(1, "m", Triple("0" * 16, "1" * 16, "2" * 16), policies, dim, "sequence", NOW)


def requests(seed: int = 0) -> list[SteerContext]:
    """512 requests of different users."""
    return [SteerContext(f"u-{seed}-{user}", f"r-{user}", ATTRIBUTES) for user in range(REQUESTS)]


def match_us(mix: str = "mixed", *, returning: bool = False) -> float:
    """Microseconds of processor time per request, median over rounds; `returning` users were there before."""
    matcher, seconds = Matcher(thousand_policies(mix).policies), []
    for turn in range(ROUNDS):
        asked = requests(0 if returning else turn)
        begin = time.thread_time()
        for context in asked:
            matcher.find(context, NOW)
        seconds.append((time.thread_time() - begin) / len(asked))
    return statistics.median(seconds[1:]) * 1e6


def one_by_one(policies: Sequence[PlanPolicy], context: SteerContext) -> list[PlanPolicy]:
    """The policies that hold at `NOW`, by trying all."""
    return [
        policy
        for policy in policies
        if policy.window.contains(NOW)
        and (not policy.scope.user_ids or context.user_id in policy.scope.user_ids)
        and (policy.scope.segment is None or evaluate(policy.scope.segment, context.attributes) is True)
        and in_rollout(policy.scope.rollout_percent, policy.salt, context.user_id, context.request_id)
    ]


def main() -> None:
    """Prints a table, then the JSON line."""
    sys.stdout.write(f"{this_machine().processor}; {POLICIES} policies, us of processor time per request\n")
    line = "{:28} {:>8} {:>9} {:>9} {:>11} {:>9}\n"
    sys.stdout.write(line.format("mix", "matching", "new user", "returning", "one by one", "index ms"))
    result = {}
    for mix in MIXES:
        policies = thousand_policies(mix).policies
        begin = time.thread_time()
        matcher = Matcher(policies)
        build = time.thread_time() - begin
        asked, matching = requests()[:32], []
        begin = time.thread_time()
        expected = [one_by_one(policies, context) for context in asked]
        brute = (time.thread_time() - begin) / len(asked)
        for context, wanted in zip(asked, expected, strict=True):
            assert list(matcher.find(context, NOW).live) == wanted, mix
            matching.append(len(wanted))
        new, back = match_us(mix), match_us(mix, returning=True)
        numbers = (f"{new:.1f}", f"{back:.1f}", f"{brute * 1e6:.0f}", f"{build * 1e3:.1f}")
        sys.stdout.write(line.format(mix, f"{statistics.mean(matching):.1f}", *numbers))
        result[mix] = round(new, 2)
    sys.stdout.write(json.dumps({"bench": "matching", "policies": POLICIES, "us": result}) + "\n")


_OPEN = Window(NOW - 3600, NOW + 7 * 86_400)
_EVERYONE = Scope()


def _with_matching(others: Scopes, matching: Scopes) -> Scopes:
    """The few that match, spread among the others."""
    made = others[: POLICIES - len(matching)]
    for order, one in enumerate(matching):
        made.insert(order * (POLICIES // len(matching)), one)
    return made


def _matching_segments() -> Scopes:
    segments: list[Segment] = [
        Equals("country", "DE"),
        AllOf((In("surface", ("home", "search")), Range("age", 30, 40))),
        AllOf((Equals("plan", "premium"), Not(Equals("country", "US")))),
        AnyOf((Equals("device", "tv"), Equals("surface", "kids"))),
        AllOf((Range("hour", 18, 23), Equals("language", "de"), Equals("new", False))),
    ]
    return [(Scope(segment=segment), _OPEN) for segment in segments]


def _mixed(draw: random.Random) -> Scopes:
    """By country, surface, age, plan, users, windows and rollouts in turn, as a shop with many markets would have."""
    makers: list[Callable[[int], tuple[Scope, Window]]] = [
        lambda one: (Scope(segment=Equals("country", f"C{one % 60}")), _OPEN),
        lambda one: (
            Scope(segment=AllOf((Equals("country", f"C{one % 60}"), Equals("surface", draw.choice(_SURFACES))))),
            _OPEN,
        ),
        lambda one: (Scope(segment=AllOf((_age(draw, 20), In("plan", ("free", "basic"))))), _OPEN),
        lambda one: (Scope(user_ids=tuple(f"v-{draw.randrange(10**6)}" for _ in range(50))), _OPEN),
        lambda one: (Scope(segment=Equals("country", "DE"), rollout_percent=20), _past(draw)),
        lambda one: (Scope(segment=AllOf((Equals("surface", "search"), _age(draw)))), _OPEN),
        lambda one: (
            Scope(
                segment=AnyOf((Equals("country", f"C{one % 60}"), Equals("campaign", f"c-{one}"))), rollout_percent=10
            ),
            _OPEN,
        ),
        lambda one: (Scope(segment=AllOf((Not(Equals("country", "DE")), Equals("surface", "home")))), _OPEN),
    ]
    return _with_matching([makers[one % len(makers)](one) for one in range(POLICIES)], _matching_segments())


_SURFACES = ("home", "search", "cart", "mail", "kids")


def _age(draw: random.Random, below: int = 90) -> Segment:
    low = draw.randrange(10, below)
    return Range("age", low, low + draw.randrange(1, 12))


def _past(draw: random.Random) -> Window:
    end = NOW - draw.random() * 86_400
    return Window(end - 86_400, end)


def _one_value_each(draw: random.Random) -> Scopes:
    return _with_matching(
        [(Scope(segment=Equals("campaign", f"c-{one}")), _OPEN) for one in range(POLICIES)], _matching_segments()
    )


def _attribute_each(draw: random.Random) -> Scopes:
    return _with_matching(
        [(Scope(segment=Equals(f"flag-{one}", True)), _OPEN) for one in range(POLICIES)], _matching_segments()
    )


def _all_ranges(draw: random.Random) -> Scopes:
    def outside(name: str, at: float) -> Range:
        low = draw.uniform(at + 1, at + 50)
        return Range(name, low, low + draw.uniform(1, 50))

    others = [outside("age", 34.0) if one % 2 else outside("hour", 20.0) for one in range(POLICIES)]
    matching: list[Segment] = [Range("age", 34.0 - one, 35.0 + one) for one in range(MATCHING)]
    return _with_matching(
        [(Scope(segment=one), _OPEN) for one in others], [(Scope(segment=one), _OPEN) for one in matching]
    )


def _all_negations(draw: random.Random) -> Scopes:
    """Nothing that a value could be looked up for: known country and age, and then something else."""
    others: list[Segment] = [
        AllOf((Not(Equals("country", "DE")), Not(In("plan", (f"x{one}", "y"))), Not(Equals("surface", f"s{one}"))))
        for one in range(POLICIES)
    ]
    return _with_matching([(Scope(segment=one), _OPEN) for one in others], _matching_segments())


def _users(draw: random.Random) -> Scopes:
    return _with_matching(
        [(Scope(user_ids=tuple(f"v-{draw.randrange(10**6)}" for _ in range(100))), _OPEN) for _ in range(POLICIES)],
        _matching_segments(),
    )


def _closed_windows(draw: random.Random) -> Scopes:
    return _with_matching([(_EVERYONE, _past(draw)) for _ in range(POLICIES)], [(_EVERYONE, _OPEN)] * MATCHING)


def _rollouts_in_segments(draw: random.Random) -> Scopes:
    """Every policy at 50 %, ten of them for the request's country."""
    others = [(Scope(segment=Equals("country", f"C{one % 99}"), rollout_percent=50), _OPEN) for one in range(POLICIES)]
    matching = [(Scope(segment=Equals("country", "DE"), rollout_percent=50), _OPEN)] * (2 * MATCHING)
    return _with_matching(others, matching)


def _everyone_rolled_out(draw: random.Random) -> Scopes:
    return [(Scope(rollout_percent=0.5), _OPEN)] * POLICIES


MIXES: dict[str, Callable[[random.Random], Scopes]] = {
    "mixed": _mixed,
    "a value each": _one_value_each,
    "an attribute each": _attribute_each,
    "all ranges": _all_ranges,
    "all negations": _all_negations,
    "all by users": _users,
    "all windows": _closed_windows,
    "rollouts in segments": _rollouts_in_segments,
    "everyone at 0.5 %": _everyone_rolled_out,
}

if __name__ == "__main__":
    main()
