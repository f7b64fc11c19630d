"""Which policies of a plan hold for a request, and which hold but for their rollout.

An index leaves only policies whose window, users and looked-up attributes fit, whatever their number; what it cannot
decide (parts of nested segments, rollouts) is tried one by one. The outcome is that of trying every policy. Not here:
the index (`policy_index`), what policies do (`delta`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from recsae.steering.conditions import alternatives
from recsae.steering.plans import PlanPolicy
from recsae.steering.policies import Window
from recsae.steering.policy_index import AlternativesIndex, NotIndexedError, Places, Steps, bits, places_in
from recsae.steering.predicates import compiled
from recsae.steering.receipts import MOST_HELD_OUT, PolicyRef
from recsae.steering.rollout import rollout_limit, salted
from recsae.steering.segments import Attribute

# Outcomes kept, a pointer per policy in each, and keys, some hundred bytes; past that they are found again.
_OUTCOMES = 512
_KEYS = 8_192


@dataclass(frozen=True)
class SteerContext:
    """Whom a row belongs to. `request_id` is the rollout key when there is no user."""

    user_id: str = ""
    request_id: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Match:
    """What holds for a request, in the order of application: `live` policies, those in `shadow`, and `together` both.

    `held_out`: live policies that would hold but for their rollout, the first `MOST_HELD_OUT` in order.
    """

    live: tuple[PlanPolicy, ...] = ()
    shadow: tuple[PlanPolicy, ...] = ()
    together: tuple[PlanPolicy, ...] = ()
    held_out: tuple[PolicyRef, ...] = ()


NO_MATCH = Match()


class Matcher:
    """Finds the policies of one plan that hold for a request. Safe to call from several threads."""

    def __init__(self, policies: tuple[PlanPolicy, ...]) -> None:
        """Builds the index: some ten milliseconds for 1,000 policies."""
        self._policies = policies
        self._live = bits(place for place, policy in enumerate(policies) if not policy.shadow)
        self._windows = Steps([(place, _span(policy.window)) for place, policy in enumerate(policies)])
        self._for_anyone, self._by_user = _users(policies)
        segments = {
            place: policy.scope.segment for place, policy in enumerate(policies) if policy.scope.segment is not None
        }
        self._with_segment = bits(segments)
        self._segments = AlternativesIndex({place: alternatives(segment) for place, segment in segments.items()})
        self._predicates = {place: compiled(segment) for place, segment in segments.items()}
        self._partial_rollouts = bits(
            place for place, policy in enumerate(policies) if not policy.scope.rollout_percent >= 100
        )
        self._rollouts = [(salted(policy.salt), rollout_limit(policy.scope.rollout_percent)) for policy in policies]
        self._in_rollout: dict[str, tuple[Places, Places]] = {}
        self._outcomes: dict[tuple[Places, Places], Match] = {}
        self.unknown_attributes = 0
        """Policies so far that fit all that was known of a request and hung on an attribute nobody knew.

        Whatever their rollout. Of nested segments it may count too many, and under threads too few.
        """

    def match(self, context: SteerContext, now: float) -> tuple[PlanPolicy, ...]:
        """The live policies of `find`."""
        return self.find(context, now).live

    def find(self, context: SteerContext, now: float) -> Match:
        """What holds at `now` (seconds since the epoch); `NO_MATCH` itself where nothing does."""
        members = self._windows.at(now) & (
            self._for_anyone | self._by_user.get(context.user_id, 0) if context.user_id else self._for_anyone
        )
        if not members:
            return NO_MATCH
        if members & self._with_segment:
            members = self._within_segments(members, context.attributes)
            if not members:
                return NO_MATCH
        rolled = members & self._partial_rollouts
        if not rolled:
            return self._outcomes.get((members, 0)) or self._outcome(members, 0)
        out = rolled & ~self._reached(rolled, context)
        members, out = members ^ out, out & self._live
        if not members and not out:
            return NO_MATCH
        return self._outcomes.get((members, out)) or self._outcome(members, out)

    def _within_segments(self, members: Places, attributes: Mapping[str, Attribute]) -> Places:
        """Those of `members` without a segment or whose segment is true."""
        asking = members & self._with_segment
        try:
            sure, untried, hanging = self._segments.may(asking, attributes)
        except (NotIndexedError, TypeError):  # NaN, or what is no attribute value at all
            sure, untried, hanging = 0, asking, 0
        if hanging:
            self.unknown_attributes += hanging.bit_count()
        for place in places_in(untried) if untried else ():
            verdict = self._predicates[place](attributes)
            if verdict:
                sure |= 1 << place
            self.unknown_attributes += verdict is None
        return members ^ asking | sure

    def _reached(self, rolled: Places, context: SteerContext) -> Places:
        """Those of `rolled` whose rollout has reached this user, or this request."""
        key = context.user_id or context.request_id
        if not key:
            return 0
        tried, reached = self._in_rollout.get(key, (0, 0))
        if untried := rolled & ~tried:
            name = key.encode()
            for place in places_in(untried):
                salt, limit = self._rollouts[place]
                if hashlib.sha256(salt + name).digest() < limit:
                    reached |= 1 << place
            # Users come back, ids of requests do not.
            if context.user_id:
                if len(self._in_rollout) >= _KEYS:
                    self._in_rollout = {}
                self._in_rollout[key] = (tried | untried, reached)
        return reached & rolled

    def _outcome(self, members: Places, out: Places) -> Match:
        together = tuple(self._policies[place] for place in places_in(members))
        held_out = tuple(self._policies[place].ref for place in islice(places_in(out), MOST_HELD_OUT))
        live = tuple(policy for policy in together if not policy.shadow)
        found = Match(live, tuple(policy for policy in together if policy.shadow), together, held_out)
        if len(self._outcomes) >= _OUTCOMES:
            self._outcomes = {}
        self._outcomes[members, out] = found
        return found


def _span(window: Window) -> tuple[float | None, float | None]:
    return window.start, window.end


def _users(policies: tuple[PlanPolicy, ...]) -> tuple[Places, dict[str, Places]]:
    """Who names no users, and who names each user or nobody."""
    anyone = bits(place for place, policy in enumerate(policies) if not policy.scope.user_ids)
    by_user: dict[str, Places] = {}
    shared: dict[Places, Places] = {}
    for place, policy in enumerate(policies):
        bit = 1 << place
        for user_id in policy.scope.user_ids:
            members = by_user.get(user_id, 0) | bit
            by_user[user_id] = shared.setdefault(members, members)
    return anyone, by_user
