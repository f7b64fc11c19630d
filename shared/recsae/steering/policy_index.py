"""Which policies may hold, for all policies of a plan at once: a set of policies is an int with a bit per place.

Built once per plan: per attribute the set for each value and between each two bounds, so that a request costs a look-up
and an AND per attribute, however many policies there are. Not here: what segments demand (`conditions`) and whatever
has to be tried policy by policy (`matching`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress

from recsae.steering.conditions import Condition, Demands, Span, Value
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


def bits(places: Iterable[int]) -> Places:
    """The set of some places."""
    members = bytearray()
    for place in places:
        if place >> 3 >= len(members):
            members.extend(bytes((place >> 3) + 1 - len(members)))
        members[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(members, "little")


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
        named: dict[Value, Places] = {}
        barred: dict[Value, Places] = {}
        for place, condition in conditions.items():
            bit = 1 << place
            self.asking |= bit
            self.absent |= bit if condition.absent else 0
            self._known |= bit if condition.known else 0
            for value in condition.values:
                named[value] = named.get(value, 0) | bit
            for value in condition.but:
                barred[value] = barred.get(value, 0) | bit
        # Most values have the same few policies: one int for all of them keeps long lists of values small.
        shared: dict[Places, Places] = {}
        found: dict[bool, dict[Attribute, Places]] = {True: {}, False: {}}
        for one in named.keys() | barred.keys():
            members = (named.get(one, 0) | self._known) & ~barred.get(one, 0)
            found[one[0]][one[1]] = shared.setdefault(members, members)
        self._flags, self._values = found[True], found[False]
        spans = [(place, span) for place, condition in conditions.items() for span in condition.spans]
        self._steps = Steps(spans, self._known) if spans else None
        self._barred = {value: members for (flag, value), members in barred.items() if not flag}

    def may(self, value: Attribute) -> Places:
        """Who may hold where the attribute has this value; NotIndexedError for NaN."""
        if isinstance(value, str):
            return self._values.get(value, self._known)
        if isinstance(value, bool):
            return self._flags.get(value, self._known)
        if value != value:
            raise NotIndexedError
        members = self._values.get(value, self._known)
        if self._steps is not None:
            members |= self._steps.at(value)
            if value in self._barred:
                members &= ~self._barred[value]
        return members


class SegmentIndex:
    """Who may hold by all attributes of a request, for one alternative of each policy."""

    def __init__(self, demands: Mapping[int, Demands]) -> None:
        """What the policies of this index demand, by place; the others never hold here."""
        everyone = bits(demands)
        asked = Counter(name for demand in demands.values() for name in demand.conditions)
        common: dict[str, dict[int, Condition]] = {name: {} for name, _ in asked.most_common(_COMMON)}
        leading: dict[str, dict[int, Condition]] = {}
        forgiving: dict[str, dict[int, Condition]] = {}
        undecided = set[int]()
        for place, demand in demands.items():
            led = False
            for name, condition in sorted(demand.conditions.items(), key=lambda one: one[0]):
                if name in common:
                    common[name][place] = condition
                elif condition.absent:
                    forgiving.setdefault(name, {})[place] = condition
                elif not led:
                    # One rare attribute that must be there is enough to find the policy by.
                    led = True
                    leading.setdefault(name, {})[place] = condition
                else:
                    undecided.add(place)
        self._members = everyone
        self.decided = bits(place for place, one in demands.items() if one.exact and place not in undecided)
        """Policies that do hold when they may."""
        self._common = [(name, AttributeIndex(own, everyone & ~bits(own))) for name, own in common.items()]
        self._leading = {name: AttributeIndex(own) for name, own in leading.items()}
        self._forgiving = {name: AttributeIndex(own, everyone & ~bits(own)) for name, own in forgiving.items()}
        self._led = bits(place for own in leading.values() for place in own)

    def may(self, among: Places, attributes: Attributes) -> tuple[Places, Places]:
        """Those of `among` that may hold, and those that would but for an attribute that is not known."""
        among &= self._members
        known = _ALL
        for name, index in self._common:
            if not among:
                return 0, 0
            value = attributes.get(name)
            if value is None:
                known &= index.absent
            else:
                among &= index.may(value)
        if self._forgiving:
            for name, value in attributes.items():
                if name in self._forgiving:
                    among &= self._forgiving[name].may(value)
        if among & self._led:
            found = asked = 0
            for name, value in attributes.items():
                if name in self._leading:
                    asked |= self._leading[name].asking
                    found |= self._leading[name].may(value)
            known &= found | ~self._led
            among &= found | ~asked | ~self._led
        return (among, 0) if known == _ALL else (among & known, among & ~known)


class AlternativesIndex:
    """Who may hold where a policy has several alternatives: an index for the first of each, the second, and so on."""

    def __init__(self, alternatives: Mapping[int, Sequence[Demands]]) -> None:
        """Alternatives by place, none = it never holds."""
        deepest = max((len(own) for own in alternatives.values()), default=0)
        self._layers = [
            SegmentIndex({place: own[depth] for place, own in alternatives.items() if len(own) > depth})
            for depth in range(deepest)
        ]

    def may(self, among: Places, attributes: Attributes) -> tuple[Places, Places, Places]:
        """Those of `among` that hold, those that may, and those that would but for an attribute that is not known."""
        sure = perhaps = hanging = 0
        for layer in self._layers:
            found, lacking = layer.may(among, attributes)
            sure |= found & layer.decided
            perhaps |= found
            hanging |= lacking
        return sure, perhaps & ~sure, hanging & ~perhaps


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
