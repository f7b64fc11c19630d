"""Which policies may hold, for all policies of a plan at once: a set of policies is an int with a bit per place.

Built once per plan: per attribute the set for each value and between each two bounds, so that a request costs a look-up
and an AND per attribute, however many policies there are. Not here: what segments demand (`conditions`) and whatever
has to be tried policy by policy (`matching`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress

from recsae.steering.conditions import Condition, Span
from recsae.steering.segments import Attribute, Attributes

# Attributes that most policies ask for are looked up in every request, the others when a request has them.
_COMMON = 16
_FEW = 40
_ALL = -1
_BITS = bytes.maketrans(b"01", b"\0\1")

Places = int
"""A set of policies: bit i stands for the policy at place i."""


class NotIndexedError(Exception):
    """The value is none that can be looked up: NaN, which has no place among numbers."""


def places_in(members: Places) -> Iterator[int]:
    """The places of a set, ascending."""
    if members.bit_count() > _FEW:
        flags = bin(members)[:1:-1].encode().translate(_BITS)
        yield from compress(range(len(flags)), flags)
        return
    while members:
        lowest = members & -members
        yield lowest.bit_length() - 1
        members ^= lowest


class Steps:
    """Sets along the numbers: who has a span that holds a number."""

    def __init__(self, spans: Sequence[tuple[int, Span]], base: Places = 0) -> None:
        """`spans` with the place of their policy, several each if need be; those of `base` are in everywhere."""
        changes: dict[float, Places] = {}
        members, owners = base, dict[int, list[Span]]()
        for place, span in spans:
            owners.setdefault(place, []).append(span)
        for place, own in owners.items():
            bit = 1 << place
            if base & bit:
                continue
            for low, high in _merged(own) if len(own) > 1 else own:
                if low is not None and high is not None and low >= high:
                    continue
                if low is None:
                    members ^= bit
                else:
                    changes[low] = changes.get(low, 0) ^ bit
                if high is not None:
                    changes[high] = changes.get(high, 0) ^ bit
        self._bounds = sorted(changes)
        self._sets = [members]
        for bound in self._bounds:
            members ^= changes[bound]
            self._sets.append(members)

    def at(self, number: float) -> Places:
        """Who has a span that holds `number`, no NaN."""
        return self._sets[bisect_right(self._bounds, number)]


class AttributeIndex:
    """Who may hold by the value of one attribute."""

    def __init__(self, conditions: Mapping[int, Condition], free: Places = 0) -> None:
        """Conditions by place; those of `free` ask for nothing."""
        self.asking: Places = 0
        self.absent = self._known = free
        values: dict[bool, dict[Attribute, Places]] = {True: {}, False: {}}
        for place, condition in conditions.items():
            bit = 1 << place
            self.asking |= bit
            self.absent |= bit if condition.absent else 0
            self._known |= bit if condition.known else 0
            for value in condition.values:
                of_kind = values[isinstance(value, bool)]
                of_kind[value] = of_kind.get(value, 0) | bit
        # Most values have the same few policies: one int for all of them keeps long lists of values small.
        shared: dict[Places, Places] = {}
        for of_kind in values.values():
            for value, members in of_kind.items():
                members |= self._known
                of_kind[value] = shared.setdefault(members, members)
        self._flags, self._values = values[True], values[False]
        spans = [(place, span) for place, condition in conditions.items() for span in condition.spans]
        self._steps = Steps(spans, self._known) if spans else None

    def may(self, value: Attribute) -> Places:
        """Who may hold where the attribute has this value; NotIndexedError for NaN."""
        if isinstance(value, str):
            return self._values.get(value, self._known)
        if isinstance(value, bool):
            return self._flags.get(value, self._known)
        if value != value:
            raise NotIndexedError
        members = self._values.get(value, self._known)
        return members if self._steps is None else members | self._steps.at(value)


class SegmentIndex:
    """Who may hold by all attributes of a request."""

    def __init__(self, demands: Sequence[Mapping[str, Condition]]) -> None:
        """What the policy at each place asks of attributes."""
        everyone = (1 << len(demands)) - 1
        asked = Counter(name for conditions in demands for name in conditions)
        common = [name for name, _ in asked.most_common(_COMMON)]
        by_name: dict[str, dict[int, Condition]] = {name: {} for name in common}
        rare: dict[str, dict[int, Condition]] = {}
        self.partial: Places = 0
        """Policies of which not every condition is looked up here."""
        for place, conditions in enumerate(demands):
            for name in conditions.keys() & by_name.keys():
                by_name[name][place] = conditions[name]
            others = sorted(conditions.keys() - by_name.keys())
            # One rare attribute that must be there is enough to find the policy by.
            leading = next((name for name in others if not conditions[name].absent), None)
            if leading is not None:
                rare.setdefault(leading, {})[place] = conditions[leading]
            if len(others) > (leading is not None):
                self.partial |= 1 << place
        self._common = [
            (name, AttributeIndex(own, everyone ^ sum(1 << place for place in own))) for name, own in by_name.items()
        ]
        self._rare = {name: AttributeIndex(own) for name, own in rare.items()}
        self._with_rare: Places = 0
        for index in self._rare.values():
            self._with_rare |= index.asking

    def may(self, among: Places, attributes: Attributes) -> tuple[Places, Places]:
        """Those of `among` that may hold, and those that would but for an attribute that is not known."""
        known = _ALL
        for name, index in self._common:
            value = attributes.get(name)
            if value is None:
                known &= index.absent
            else:
                among &= index.may(value)
            if not among:
                return 0, 0
        if among & self._with_rare:
            found = asked = 0
            for name, value in attributes.items():
                if name in self._rare:
                    index = self._rare[name]
                    asked |= index.asking
                    found |= index.may(value)
            among &= found | ~asked | ~self._with_rare
            known &= found | ~self._with_rare
        return among & known, among & ~known


def _merged(spans: list[Span]) -> list[Span]:
    """The same numbers as spans that do not meet, ascending."""
    inf = float("inf")
    ordered = sorted((-inf if low is None else low, inf if high is None else high) for low, high in spans)
    merged: list[tuple[float, float]] = []
    for low, high in ordered:
        if low >= high:
            continue
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return [(None if low == -inf else low, None if high == inf else high) for low, high in merged]
