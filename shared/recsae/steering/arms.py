"""Arms of an experiment on one policy: who got it, who was held out, and what is compared with what.

Each revision of the policy is an experiment of its own. Not here: the statistics (`experiment`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from recsae.steering.experiment import LEAST_UNITS, Differences, Doubles, paired, unpaired
from recsae.steering.receipts import PolicyRef, UnsteeredReason

# From here on a difference of a tenth is what most people would want to see.
WANTED_SHARE = 0.1
_FEW_UNITS = 30
_OTHERS_ALONE = "other_policies_alone"
# Reasons that meet those in the rollout alone.
_REFUSED = (UnsteeredReason.OVER_NORM_BUDGET, UnsteeredReason.INVALID_CHANGE, UnsteeredReason.ERROR)


class Role(StrEnum):
    """What an arm's users have to do with the policy."""

    APPLIED = "applied"
    HELD_OUT = "held_out"
    SHADOW = "shadow"


class Place(NamedTuple):
    """An arm: a role under one revision."""

    role: Role
    revision: int


class Comparing(StrEnum):
    """What a comparison sets side by side.

    PAIRED: users who got the policy, with it and without any steering. ARMS: them and those held out, as an A/B test
    would. ADJUSTED: as ARMS, from each user's list the same user's bare list taken away first: differences between the
    users of the arms, and other policies on both, fall out. SHADOW: what was served and what would have been.
    """

    PAIRED = "paired"
    ARMS = "arms"
    ADJUSTED = "adjusted"
    SHADOW = "shadow"


@dataclass(frozen=True, eq=False)
class Arm:
    """Values float64 [n, m] of an arm's users, and of the same users without the policy where they are known."""

    values: Doubles
    bare: Doubles | None = None

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, eq=False)
class Comparison:
    """One comparison under one revision, of all measures."""

    comparing: Comparing
    revision: int
    found: Differences


def place_of(
    policy_id: str,
    *,
    reason: UnsteeredReason,
    applied: Iterable[PolicyRef],
    held_out: Iterable[PolicyRef],
    shadow: Iterable[PolicyRef] = (),
) -> Place | str:
    """The arm of a response by its receipt, or why it is in none.

    The why is the receipt's own reason, `other_policies_alone` where it was steered: the request is out of the policy's
    scope, or the policy was overruled.
    """
    for role, refs in ((Role.APPLIED, applied), (Role.HELD_OUT, held_out), (Role.SHADOW, shadow)):
        for ref in refs:
            if ref.policy_id == policy_id:
                return Place(role, ref.revision)
    return _OTHERS_ALONE if reason is UnsteeredReason.STEERED else reason.value


def comparisons(arms: Mapping[Place, Arm]) -> list[Comparison]:
    """Everything that two users or more on each side allow, newest revision first."""
    made = []
    for revision in sorted({place.revision for place in arms}, reverse=True):
        own = {place.role: arm for place, arm in arms.items() if place.revision == revision and len(arm) >= LEAST_UNITS}
        made += [Comparison(comparing, revision, found) for comparing, found in _of_revision(own)]
    return made


def doubts(
    arms: Mapping[Place, Arm],
    made: Sequence[Comparison],
    measures: Sequence[str],
    outside: Mapping[str, int] | None = None,
) -> list[str]:
    """What these users cannot show, a sentence each: small arms, quality intervals too wide, one arm alone thinned.

    `outside` counts what is in no arm by reason.
    """
    small = [
        f"{len(arm)} users of revision {place.revision} are in arm {place.role}: too few to say anything"
        for place, arm in arms.items()
        if len(arm) < _FEW_UNITS
    ]
    refused = sum((outside or {}).get(reason.value, 0) for reason in _REFUSED)
    if refused and any(place.role is Role.HELD_OUT for place in arms):
        small.append(
            f"{refused} responses were to be steered and were not ({', '.join(reason.value for reason in _REFUSED)}): "
            "nobody held out is left out for that, so the arms may differ by who that happens to"
        )
    return small + [
        sentence
        for one in made
        for at, name in enumerate(measures)
        if name.startswith("ndcg@") and (sentence := _too_wide(one, at, name))
    ]


def _of_revision(arms: Mapping[Role, Arm]) -> Iterator[tuple[Comparing, Differences]]:
    applied, held_out, shadow = (arms.get(role) for role in Role)
    if applied is not None and applied.bare is not None:
        yield Comparing.PAIRED, paired(applied.values, applied.bare)
    if applied is not None and held_out is not None:
        yield Comparing.ARMS, unpaired(applied.values, held_out.values)
        if applied.bare is not None and held_out.bare is not None and (held_out.values != held_out.bare).any():
            yield Comparing.ADJUSTED, unpaired(applied.values - applied.bare, held_out.values - held_out.bare)
    if shadow is not None and shadow.bare is not None:
        yield Comparing.SHADOW, paired(shadow.values, shadow.bare)


def _too_wide(one: Comparison, at: int, measure: str) -> str:
    """What is wrong with it, empty when it would have shown a change of a tenth."""
    found = one.found
    # Of differences there is no level to be a tenth of; the arms' own comparison names it.
    level, detectable = float(found.before[at]), float(found.detectable[at])
    if one.comparing is Comparing.ADJUSTED or level <= 0 or detectable <= WANTED_SHARE * level:
        return ""
    times = (detectable / (WANTED_SHARE * level)) ** 2
    users = min(found.n_after, found.n_before)
    return (
        f"{one.comparing}, revision {one.revision}: {users} users show a change of {measure} from {detectable:.4f} on "
        f"({100 * detectable / level:.0f} % of {level:.4f}); one of {100 * WANTED_SHARE:.0f} % takes about "
        f"{times * users:,.0f}"
    )
