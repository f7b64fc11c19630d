"""What finding the policies of a request costs among 1,000 live ones, of which 5 match."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.serving.pairs import Median, median_interval
from benchmarks.serving.plans import MATCHING, many_policies, weights
from benchmarks.serving.world import USERS
from recsae.steering.matching import Matcher, SteerContext
from recsae.steering.plans import PlanPolicy

_ROUNDS, _COUNTRIES = 41, ("SE", "DK")


def match_us() -> Median:
    """Processor time of `Matcher.match` in us per request: users of a world with their country, in turn."""
    matcher = Matcher(many_policies(weights(2_048)))
    contexts = [SteerContext(f"u-{user}", f"r-{user}", {"country": _COUNTRIES[user % 2]}) for user in range(USERS)]
    now, costs = time.time(), []
    for number in range(-1, _ROUNDS):
        start = time.thread_time()
        found = [matcher.match(context, now) for context in contexts]
        spent = time.thread_time() - start
        if number < 0:
            _check([len(live_of(one)) for one in found])
        else:
            costs.append(spent / len(contexts) * 1e6)
    return median_interval(costs)


def live_of(found: Any) -> Sequence[PlanPolicy]:
    """The live policies of what a matcher found, whether it says those alone or more."""
    live: Sequence[PlanPolicy] = getattr(found, "live", found)
    return live


def _check(matched: list[int]) -> None:
    if set(matched) != {MATCHING}:
        raise RuntimeError(f"{sorted(set(matched))} policies matched, not {MATCHING}: the plan is not what it says")
