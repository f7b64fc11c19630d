"""Segments compiled to closures: what `segments.evaluate` says, without walking the tree anew for each request.

Not here: the meaning of a segment (`segments`) and which segments have to be tried at all (`policy_index`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recsae.steering.segments import AllOf, AnyOf, Attribute, Attributes, Equals, Exists, In, Not, Range, Segment

Predicate = Callable[[Attributes], bool | None]
"""True, False, or None when it hangs on an unknown attribute."""


def compiled(segment: Segment) -> Predicate:
    """A function equal to `evaluate(segment, ...)`."""
    match segment:
        case AllOf(children):
            return _all_of([compiled(child) for child in children])
        case AnyOf(children):
            return _any_of([compiled(child) for child in children])
        case Not(child):
            return _not(compiled(child))
        case Exists(name):
            return lambda attributes: name in attributes
        case Equals(name, wanted):
            return _one_of(name, (wanted,))
        case In(name, wanted_values):
            return _one_of(name, wanted_values)
        case Range(name, low, high):
            return _within(name, low, high)


def _all_of(children: Sequence[Predicate]) -> Predicate:
    def holds(attributes: Attributes) -> bool | None:
        verdict: bool | None = True
        for child in children:
            part = child(attributes)
            if part is False:
                return False
            if part is None:
                verdict = None
        return verdict

    return holds


def _any_of(children: Sequence[Predicate]) -> Predicate:
    def holds(attributes: Attributes) -> bool | None:
        verdict: bool | None = False
        for child in children:
            part = child(attributes)
            if part:
                return True
            if part is None:
                verdict = None
        return verdict

    return holds


def _not(child: Predicate) -> Predicate:
    def holds(attributes: Attributes) -> bool | None:
        part = child(attributes)
        return None if part is None else not part

    return holds


def _one_of(name: str, wanted: Sequence[Attribute]) -> Predicate:
    # True is 1 in Python, so that flags are looked up by themselves; a set finds a NaN, which equals nothing.
    flags = frozenset(value for value in wanted if isinstance(value, bool))
    others = frozenset(value for value in wanted if not isinstance(value, bool) and value == value)

    def holds(attributes: Attributes) -> bool | None:
        value = attributes.get(name)
        if value is None:
            return None
        try:
            return value in (flags if isinstance(value, bool) else others)
        except TypeError:  # a list or the like, which no value equals
            return False

    return holds


def _within(name: str, low: float | None, high: float | None) -> Predicate:
    def holds(attributes: Attributes) -> bool | None:
        value = attributes.get(name)
        if value is None or isinstance(value, str | bool):
            return None
        return (low is None or low <= value) and (high is None or value < high)

    return holds
