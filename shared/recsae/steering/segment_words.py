"""Segments in words: one line people read and write, and why a segment does not hold for a request.

The line is what `recsae.cli.segment_expression` reads, e.g. `country=DK and not age<18`. Not here: evaluating
(`segments`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from recsae.steering.segments import (
    AllOf,
    AnyOf,
    Attribute,
    Attributes,
    Equals,
    Exists,
    In,
    Not,
    Range,
    Segment,
    evaluate,
)

KEYWORDS = frozenset({"and", "or", "not", "in", "exists", "true", "false"})
# Digits after a leading zero are a code, as in user tables (`recsae.datasets.attributes`).
NUMBER = re.compile(r"(?!0\d+\Z)[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
# What stands without quotes: anything but blanks, quotes, and the signs of the grammar.
BARE = re.compile(r"[^\s()=<>!,\"'\\]+")
_MOST_WORDS = 60
_MOST_CAUSES = 3


def segment_text(segment: Segment) -> str:
    """The segment as one line; reading it back gives an equal segment (nodes of a single child are left out)."""
    return _text(segment, 0)


def why_not(segment: Segment, attributes: Attributes) -> str:
    """What of a segment does not hold for these attributes, in words; "" when it holds."""
    if evaluate(segment, attributes) is True:
        return ""
    match segment:
        case AllOf(children):
            return next(why for child in children if (why := why_not(child, attributes)))
        case AnyOf(children):
            causes = [why_not(child, attributes) for child in children[:_MOST_CAUSES]]
            more = f", and {len(children) - _MOST_CAUSES} more" if len(children) > _MOST_CAUSES else ""
            return ", and ".join(causes) + more
        case Not(child):
            if evaluate(child, attributes) is None:
                return _unknown(child, attributes)
            return f"{_shortened(segment_text(child))} holds, and must not"
        case Exists(attribute):
            return f"{quoted(attribute)} is not known of this request"
    value = attributes.get(segment.attribute)
    if value is None:
        return f"{quoted(segment.attribute)} is not known of this request"
    return f"{quoted(segment.attribute)} is {_shortened(value_text(value))}, not {_wanted(segment)}"


def value_text(value: Attribute) -> str:
    """A value as the grammar writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value)
        case _:
            short = f"{value:g}"
            return short if float(short) == value else repr(float(value))


def quoted(text: str) -> str:
    """A name or text: bare where that is read back as itself, else in double quotes."""
    if BARE.fullmatch(text) and text.lower() not in KEYWORDS and not NUMBER.fullmatch(text):
        return text
    return json.dumps(text, ensure_ascii=False)


def _text(segment: Segment, binds: int) -> str:
    """`binds`: 0 = stands alone, 1 = within `or`, 2 = within `and`, 3 = after `not`."""
    match segment:
        case AllOf((child,)) | AnyOf((child,)):
            return _text(child, binds)
        case AllOf(children):
            return _joined(" and ", [_text(child, 2) for child in children], binds >= 2)
        case AnyOf(children):
            return _joined(" or ", [_text(child, 1) for child in children], binds >= 1)
        case Not(child):
            return f"not {_text(child, 3)}"
        case Equals(attribute, value):
            return f"{quoted(attribute)}={value_text(value)}"
        case In(attribute, values):
            return f"{quoted(attribute)} in ({_listed(values)})"
        case Exists(attribute):
            return f"exists {quoted(attribute)}"
        case Range(attribute, low, high):
            below = f"<{value_text(high)}" if high is not None else ""
            if low is None or high is None:
                return f"{quoted(attribute)}{below}" if low is None else f"{quoted(attribute)}>={value_text(low)}"
            return f"{value_text(low)}<={quoted(attribute)}{below}"


def _joined(word: str, parts: Sequence[str], in_brackets: bool) -> str:
    text = word.join(parts)
    return f"({text})" if in_brackets else text


def _listed(values: Sequence[Attribute]) -> str:
    return ", ".join(value_text(value) for value in values)


def _wanted(segment: Equals | In | Range) -> str:
    match segment:
        case Equals(_, value):
            return _shortened(value_text(value))
        case In(_, values):
            return f"one of {_shortened(_listed(values))}"
        case Range(_, low, high):
            bounds = [f"at least {low:g}"] if low is not None else []
            bounds += [f"below {high:g}"] if high is not None else []
            return f"a number {' and '.join(bounds)}"


def _unknown(segment: Segment, attributes: Attributes) -> str:
    """What an undecided segment hangs on."""
    match segment:
        case AllOf(children) | AnyOf(children):
            undecided = next(child for child in children if evaluate(child, attributes) is None)
            return _unknown(undecided, attributes)
        case Not(child):
            return _unknown(child, attributes)
        case _:
            return why_not(segment, attributes)


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_WORDS else text[: _MOST_WORDS - 1] + "…"
