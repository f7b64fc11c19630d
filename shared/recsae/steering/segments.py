"""Segments: bounded predicates over user and request attributes.

Three-valued: a leaf over an unknown attribute (or a range over something that is no number) is neither true nor
false, `not` leaves it so, and only a true whole matches. So `not country=US` does not catch requests whose country
nobody knows; `any(not country=US, not exists country)` does. Not here: the wire form (`wire`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from recsae.errors import InvalidRequestError

Attribute = str | float | bool
Attributes = Mapping[str, Attribute]

MAX_DEPTH = 8
MAX_NODES = 64
MAX_CHILDREN = 16
MAX_VALUES = 256
MAX_NAME = 64


@dataclass(frozen=True)
class AllOf:
    """Every child matches."""

    children: tuple[Segment, ...]


@dataclass(frozen=True)
class AnyOf:
    """At least one child matches."""

    children: tuple[Segment, ...]


@dataclass(frozen=True)
class Not:
    """The child does not match."""

    child: Segment


@dataclass(frozen=True)
class Equals:
    """The attribute equals the value; a text never equals a number."""

    attribute: str
    value: Attribute


@dataclass(frozen=True)
class In:
    """The attribute is one of the values."""

    attribute: str
    values: tuple[Attribute, ...]


@dataclass(frozen=True)
class Range:
    """min <= attribute < max; None = no bound."""

    attribute: str
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class Exists:
    """The attribute is known."""

    attribute: str


Segment = AllOf | AnyOf | Not | Equals | In | Range | Exists


def evaluate(segment: Segment, attributes: Attributes) -> bool | None:
    """True, False, or None when it hangs on an unknown attribute."""
    match segment:
        case AllOf(children):
            return _conjunction([evaluate(child, attributes) for child in children])
        case AnyOf(children):
            return _inverted(_conjunction([_inverted(evaluate(child, attributes)) for child in children]))
        case Not(child):
            return _inverted(evaluate(child, attributes))
        case Exists(attribute):
            return attribute in attributes
    value = attributes.get(segment.attribute)
    if value is None:
        return None
    match segment:
        case Equals(_, wanted):
            return _same(value, wanted)
        case In(_, values):
            return any(_same(value, wanted) for wanted in values)
        case Range(_, low, high):
            if isinstance(value, str | bool):
                return None
            return (low is None or low <= value) and (high is None or value < high)


def matches(segment: Segment, attributes: Attributes) -> bool:
    """True when the segment is certain to hold."""
    return evaluate(segment, attributes) is True


def validate_segment(segment: Segment) -> None:
    """InvalidRequestError when it is deeper, larger or emptier than allowed, naming where."""
    nodes = _validate(segment, depth=1)
    if nodes > MAX_NODES:
        raise InvalidRequestError(f"the segment has {nodes} nodes; use at most {MAX_NODES}")


def attribute_names(segment: Segment) -> frozenset[str]:
    """Every attribute it reads."""
    match segment:
        case AllOf(children) | AnyOf(children):
            return frozenset().union(*(attribute_names(child) for child in children))
        case Not(child):
            return attribute_names(child)
        case _:
            return frozenset({segment.attribute})


def _validate(segment: Segment, depth: int) -> int:
    if depth > MAX_DEPTH:
        raise InvalidRequestError(f"the segment is deeper than {MAX_DEPTH} levels; flatten it")
    match segment:
        case AllOf(children) | AnyOf(children):
            if not 1 <= len(children) <= MAX_CHILDREN:
                raise InvalidRequestError(f"a segment node has {len(children)} children; give 1 to {MAX_CHILDREN}")
            return 1 + sum(_validate(child, depth + 1) for child in children)
        case Not(child):
            return 1 + _validate(child, depth + 1)
    if not 1 <= len(segment.attribute) <= MAX_NAME:
        raise InvalidRequestError(
            f"attribute name {segment.attribute[:MAX_NAME]!r} has {len(segment.attribute)} characters; "
            f"give 1 to {MAX_NAME}"
        )
    match segment:
        case Equals(attribute, value):
            _validate_value(attribute, value)
        case In(attribute, values):
            if not 1 <= len(values) <= MAX_VALUES:
                raise InvalidRequestError(f"{attribute} in {len(values)} values; give 1 to {MAX_VALUES}")
            for value in values:
                _validate_value(attribute, value)
        case Range(attribute, low, high):
            _validate_range(attribute, low, high)
    return 1


def _validate_value(attribute: str, value: Attribute) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequestError(f"{attribute} is compared with {value}; give a finite number")


def _validate_range(attribute: str, low: float | None, high: float | None) -> None:
    bounds = [bound for bound in (low, high) if bound is not None]
    if not bounds or not all(math.isfinite(bound) for bound in bounds):
        raise InvalidRequestError(f"the range of {attribute} is {low} to {high}; give at least one finite bound")
    if low is not None and high is not None and low >= high:
        raise InvalidRequestError(f"the range of {attribute} is {low} to {high}, which holds nothing; swap the bounds")


def _same(value: Attribute, wanted: Attribute) -> bool:
    # bool is an int in Python: without the check True would equal 1.0.
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _conjunction(parts: list[bool | None]) -> bool | None:
    if any(part is False for part in parts):
        return False
    return None if any(part is None for part in parts) else True


def _inverted(part: bool | None) -> bool | None:
    return None if part is None else not part
