"""Text columns as values for segments: a column of numbers becomes numbers, any other stays text.

Reads nothing but strings, so that serving can use it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

AttributeValue = str | float

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
# "02139" is a code, and would not survive being a number.
_CODE = re.compile(r"0\d+", re.ASCII)


def as_number(text: str) -> float | None:
    """The finite decimal number a text is, else None ("nan", "inf", "1_000" and " 5" are none)."""
    return float(text) if _NUMBER.fullmatch(text) else None


def typed_column(values: Sequence[str]) -> tuple[AttributeValue | None, ...]:
    """Values [n] of one column: numbers when every filled cell is one, else text; None where the cell is empty."""
    filled = [value for value in values if value]
    if any(as_number(value) is None or _CODE.fullmatch(value) for value in filled):
        return tuple(value or None for value in values)
    return tuple(float(value) if value else None for value in values)


def typed_rows(columns: Mapping[str, Sequence[str]], count: int) -> list[dict[str, AttributeValue]]:
    """Attributes of each of `count` users; an empty cell is an absent attribute."""
    rows: list[dict[str, AttributeValue]] = [{} for _ in range(count)]
    for name, values in columns.items():
        for row, value in zip(rows, typed_column(values), strict=True):
            if value is not None:
                row[name] = value
    return rows
