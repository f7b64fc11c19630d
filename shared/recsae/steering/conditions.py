"""What a segment demands of single attributes: conditions without which it cannot be true.

`country = DE and not 18 <= age < 30` demands of `country` that it is DE and of `age` that it is a number outside 18 to
30. Demands may be weaker than the segment and never stronger; `exact` says that together they are the segment itself.
Not here: how demands are looked up (`policy_index`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from recsae.steering.segments import AllOf, AnyOf, Attribute, Equals, Exists, In, Not, Range, Segment

Span = tuple[float | None, float | None]
"""From the first (inclusive) to the second (exclusive); None = no bound."""


@dataclass(frozen=True)
class Condition:
    """What one attribute may be: one of the `values`, a number in a span, anything `known`, or `absent`."""

    values: tuple[Attribute, ...] = ()
    spans: tuple[Span, ...] = ()
    known: bool = False
    absent: bool = False


@dataclass(frozen=True)
class Demands:
    """A segment is true only where all conditions hold; when `exact`, exactly there.

    NaN is outside of every span here, although `not (min <= NaN)` is true: whoever looks up keeps NaN away.
    """

    conditions: Mapping[str, Condition] = field(default_factory=dict)
    exact: bool = True


_NOTHING_KNOWN = Demands(exact=False)


def demands(segment: Segment, wanted: bool = True) -> Demands:
    """What has to hold for the segment to be true, or false where that is `wanted`."""
    match segment:
        case Not(child):
            return demands(child, not wanted)
        case AllOf(children) | AnyOf(children):
            parts = [demands(child, wanted) for child in children]
            # One false child makes `all` false, as one true child makes `any` true.
            return _each(parts) if isinstance(segment, AllOf) is wanted else _either(parts)
        case Exists(name):
            return Demands({name: Condition(known=wanted, absent=not wanted)})
        case Equals(name, value):
            return _values(name, (value,), wanted)
        case In(name, values):
            return _values(name, values, wanted)
        case Range(name, low, high):
            return _range(name, low, high, wanted)


def _values(name: str, values: Sequence[Attribute], wanted: bool) -> Demands:
    if not wanted:
        return Demands({name: Condition(known=True)}, exact=False)
    return Demands({name: Condition(values=tuple(value for value in values if value == value))})


def _range(name: str, low: float | None, high: float | None, wanted: bool) -> Demands:
    if any(bound is not None and not math.isfinite(bound) for bound in (low, high)):
        return _NOTHING_KNOWN
    spans: list[Span] = [(low, high)] if wanted else []
    if not wanted:
        spans += [] if low is None else [(None, low)]
        spans += [] if high is None else [(high, None)]
    return Demands({name: Condition(spans=tuple(spans))})


def _each(parts: Sequence[Demands]) -> Demands:
    """All parts hold."""
    conditions: dict[str, Condition] = {}
    exact = all(part.exact for part in parts)
    for part in parts:
        for name, condition in part.conditions.items():
            if name in conditions:
                condition, both = _intersection(conditions[name], condition)
                exact = exact and both
            conditions[name] = condition
    return Demands(conditions, exact)


def _either(parts: Sequence[Demands]) -> Demands:
    """At least one part holds: of an attribute that all of them ask for, what any of them asks."""
    if not parts:
        return _NOTHING_KNOWN
    shared = set(parts[0].conditions).intersection(*(part.conditions for part in parts[1:]))
    conditions = {name: _union([part.conditions[name] for part in parts]) for name in sorted(shared)}
    single = len(shared) == 1 and all(len(part.conditions) == 1 for part in parts)
    return Demands(conditions, exact=(single or len(parts) == 1) and all(part.exact for part in parts))


def _union(conditions: Iterable[Condition]) -> Condition:
    found = Condition()
    for one in conditions:
        found = Condition(
            found.values + one.values, found.spans + one.spans, found.known or one.known, found.absent or one.absent
        )
    return found


def _intersection(a: Condition, b: Condition) -> tuple[Condition, bool]:
    """A condition that both imply, and whether it is no weaker than both together."""
    for one, other in ((a, b), (b, a)):
        if one == Condition(known=True):
            return replace(other, absent=False), True
    if not (a.known or a.absent or b.known or b.absent):
        if not (a.spans or b.spans):
            kept = {(isinstance(value, bool), value) for value in b.values}
            return Condition(values=tuple(one for one in a.values if (isinstance(one, bool), one) in kept)), True
        if not (a.values or b.values):
            return Condition(spans=tuple(_overlap(one, other) for one in a.spans for other in b.spans)), True
    # Either is necessary; the one over a few values leaves fewest to try.
    return (a, False) if a.values and not a.known else (b, False)


def _overlap(a: Span, b: Span) -> Span:
    lows = [low for low, _ in (a, b) if low is not None]
    highs = [high for _, high in (a, b) if high is not None]
    return max(lows, default=None), min(highs, default=None)
