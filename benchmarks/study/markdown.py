"""Figures as Markdown: numbers, intervals and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def is_interval(value: Any) -> bool:
    """Whether it is a value with an interval, in either of the two forms studies use."""
    return isinstance(value, Mapping) and "value" in value and ("ci" in value or "low" in value)


def interval(value: Any) -> str:
    """A value with its interval in brackets, or the number where there is no interval."""
    if not is_interval(value):
        return number(value)
    low, high = value["ci"] if "ci" in value else (value["low"], value["high"])
    return f"{value['value']:.3f} [{low:.3f}, {high:.3f}]"


def number(value: Any) -> str:
    """Three decimals; the value of an interval; text as it is."""
    if isinstance(value, Mapping):
        return number(value.get("value", ""))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table, with an empty one behind it."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in body]
    return [*lines, ""]
