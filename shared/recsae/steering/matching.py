"""Which policies of a plan hold for a request: an index over users in front of the predicates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from recsae.steering.plans import PlanPolicy
from recsae.steering.policies import Scope
from recsae.steering.rollout import in_rollout
from recsae.steering.segments import Attribute, evaluate


@dataclass(frozen=True)
class SteerContext:
    """Whom a row belongs to. `request_id` is the rollout key when there is no user."""

    user_id: str = ""
    request_id: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


class Matcher:
    """Finds the policies of one plan that hold for a request. Read-only once built."""

    def __init__(self, policies: tuple[PlanPolicy, ...]) -> None:
        """Policies that name users are looked up by user; only the others are tried one by one."""
        self._policies = policies
        self._open = [place for place, policy in enumerate(policies) if not policy.scope.user_ids]
        self._by_user: dict[str, list[int]] = {}
        for place, policy in enumerate(policies):
            for user_id in dict.fromkeys(policy.scope.user_ids):
                self._by_user.setdefault(user_id, []).append(place)
        self.unknown_attributes = 0
        """Predicates so far that hung on an attribute nobody knew, and so did not match (approximate under threads)."""

    def match(self, context: SteerContext, now: float) -> tuple[PlanPolicy, ...]:
        """Policies that hold at `now` (seconds since the epoch), in the order of application."""
        named = self._by_user.get(context.user_id, ()) if context.user_id else ()
        places = sorted([*self._open, *named]) if named else self._open
        return tuple(
            policy
            for policy in (self._policies[place] for place in places)
            if policy.window.contains(now) and self._holds(policy.scope, policy.salt, context)
        )

    def _holds(self, scope: Scope, salt: str, context: SteerContext) -> bool:
        if scope.rollout_percent < 100 and not in_rollout(
            scope.rollout_percent, salt, context.user_id, context.request_id
        ):
            return False
        if scope.segment is None:
            return True
        verdict = evaluate(scope.segment, context.attributes)
        if verdict is None:
            self.unknown_attributes += 1
        return verdict is True
