"""How the CLI looks: one console, one table style, JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[RenderableType]]) -> Table:
    """A table in the house style; a column name that starts with `>` is right-aligned."""
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def shortened(text: str, length: int) -> str:
    """The text, cut to `length` characters with a mark where it is longer."""
    return text if len(text) <= length else text[: length - 1] + "…"


def print_json(value: Message | Any) -> None:
    """A message or a plain value as JSON on standard output, nothing else around it."""
    console.file.write(json.dumps(as_plain(value), indent=2, ensure_ascii=False) + "\n")


def as_plain(value: Message | Any) -> Any:
    """A protobuf message as a dict with the contract's field names; anything else as it is."""
    if isinstance(value, Message):
        return MessageToDict(value, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return value


def share(value: float) -> str:
    """A share as per cent with one digit."""
    return f"{100 * value:.1f} %"


def short(value: float | None, form: str = ".3f") -> str:
    """Without the zero in front of the point, so that a table of intervals fits 80 columns; "" for None."""
    if value is None:
        return ""
    text = f"{value:{form}}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """A value and its interval, e.g. ".977 [.959, .995]"; "" without a value."""
    return f"{short(value)} [{short(low)}, {short(high)}]" if value is not None else ""


def bar(value: float, width: int = 12) -> str:
    """A value between 0 and 1 as a bar of `width` cells."""
    filled = round(max(0.0, min(1.0, value)) * width)
    return "█" * filled + "·" * (width - filled)
