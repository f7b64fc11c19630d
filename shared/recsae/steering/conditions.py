"""What a segment demands of single attributes: alternatives, of which one has to hold, of conditions that all hold.

`country = DE and not 18 <= age < 30` has one alternative: `country` is DE and `age` a number outside 18 to 30. With an
`or` between different attributes there are several. Demands may be weaker than the segment, never stronger; `exact`
ones are as strong. Not here: how they are looked up (`policy_index`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from recsae.steering.segments import AllOf, AnyOf, Attribute, Equals, Exists, In, Not, Range, Segment

MOST_ALTERNATIVES = 4

Span = tuple[float | None, float | None]
"""From the first (inclusive) to the second (exclusive); None = no bound."""
Value = tuple[bool, Attribute]
"""A value and whether it is a flag: True is 1 in Python."""


@dataclass(frozen=True)
class Condition:
    """What one attribute may be: one of `values`, in a span or anything `known`, less what is in `but`; or `absent`."""

    values: frozenset[Value] = frozenset()
    spans: tuple[Span, ...] = ()
    known: bool = False
    absent: bool = False
    but: frozenset[Value] = frozenset()

    def allows(self, value: Value) -> bool:
        """True where the attribute may have this value."""
        return value not in self.but and self._names(value)

    def _names(self, value: Value) -> bool:
        return self.known or value in self.values or any(_holds(span, value) for span in self.spans)

    def __and__(self, other: Condition) -> Condition:
        absent, but = self.absent and other.absent, self.but | other.but
        if self.known:
            return Condition(other.values, other.spans, other.known, absent, but)
        if other.known:
            return Condition(self.values, self.spans, False, absent, but)
        values = {one for one in self.values if other._names(one)} | {one for one in other.values if self._names(one)}
        spans = tuple(_overlap(one, another) for one in self.spans for another in other.spans)
        return Condition(frozenset(values), spans, False, absent, but)

    def __or__(self, other: Condition) -> Condition:
        neither = {one for one in self.but if not other.allows(one)} | {
            one for one in other.but if not self.allows(one)
        }
        return Condition(
            self.values | other.values,
            self.spans + other.spans,
            self.known or other.known,
            self.absent or other.absent,
            frozenset(neither),
        )


@dataclass(frozen=True)
class Demands:
    """One alternative: all conditions hold wherever it makes the segment true; when `exact`, only there.

    NaN is outside of every span here, although `not (min <= NaN)` is true: whoever looks up keeps NaN away.
    """

    conditions: Mapping[str, Condition] = field(default_factory=dict)
    exact: bool = True


_WHATEVER = Demands(exact=False)


def alternatives(segment: Segment, wanted: bool = True) -> list[Demands]:
    """What may make the segment true, or false where that is `wanted`; at most `MOST_ALTERNATIVES`, none = nothing."""
    match segment:
        case Not(child):
            return alternatives(child, not wanted)
        case AllOf(children) | AnyOf(children):
            parts = [alternatives(child, wanted) for child in children]
            # One false child makes `all` false, as one true child makes `any` true.
            return (
                _each(parts) if isinstance(segment, AllOf) is wanted else _any([one for part in parts for one in part])
            )
        case Exists(name):
            return [Demands({name: Condition(known=wanted, absent=not wanted)})]
        case Equals(name, value):
            return _one_of(name, (value,), wanted)
        case In(name, values):
            return _one_of(name, values, wanted)
        case Range(name, low, high):
            return _range(name, low, high, wanted)


def _one_of(name: str, values: Sequence[Attribute], wanted: bool) -> list[Demands]:
    named = frozenset((isinstance(value, bool), value) for value in values if value == value)
    return [Demands({name: Condition(values=named) if wanted else Condition(known=True, but=named)})]


def _range(name: str, low: float | None, high: float | None, wanted: bool) -> list[Demands]:
    if any(bound is not None and not math.isfinite(bound) for bound in (low, high)):
        return [_WHATEVER]
    spans: list[Span] = [(low, high)] if wanted else []
    if not wanted:
        spans += [] if low is None else [(None, low)]
        spans += [] if high is None else [(high, None)]
    return [Demands({name: Condition(spans=tuple(spans))})]


def _each(parts: Sequence[list[Demands]]) -> list[Demands]:
    """All parts hold."""
    while math.prod(len(part) for part in parts) > MOST_ALTERNATIVES:
        most = max(parts, key=len)
        parts = [[_weaker(part)] if part is most else part for part in parts]
    return [_all(chosen) for chosen in product(*parts)]


def _all(parts: Iterable[Demands]) -> Demands:
    conditions: dict[str, Condition] = {}
    exact = True
    for part in parts:
        exact = exact and part.exact
        for name, condition in part.conditions.items():
            conditions[name] = conditions[name] & condition if name in conditions else condition
    return Demands(conditions, exact)


def _any(parts: Sequence[Demands]) -> list[Demands]:
    """At least one part holds. Those over the same single attribute become one."""
    single: dict[str, Condition] = {}
    kept = []
    for part in parts:
        if part.exact and len(part.conditions) == 1:
            ((name, condition),) = part.conditions.items()
            single[name] = single[name] | condition if name in single else condition
        else:
            kept.append(part)
    kept += [Demands({name: condition}) for name, condition in single.items()]
    return kept if len(kept) <= MOST_ALTERNATIVES else [_weaker(kept)]


def _weaker(parts: Sequence[Demands]) -> Demands:
    """Of the attributes that all parts ask for, what any of them asks."""
    shared = set(parts[0].conditions).intersection(*(part.conditions for part in parts[1:]))
    conditions = {name: parts[0].conditions[name] for name in sorted(shared)}
    for part in parts[1:]:
        conditions = {name: condition | part.conditions[name] for name, condition in conditions.items()}
    return Demands(conditions, exact=False)


def _holds(span: Span, value: Value) -> bool:
    flag, number = value
    if flag or isinstance(number, str):
        return False
    low, high = span
    return (low is None or low <= number) and (high is None or number < high)


def _overlap(a: Span, b: Span) -> Span:
    lows = [low for low, _ in (a, b) if low is not None]
    highs = [high for _, high in (a, b) if high is not None]
    return max(lows, default=None), min(highs, default=None)
