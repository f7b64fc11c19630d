"""HTML that escapes by default: text becomes safe unless it already is `Markup`.

Titles and labels come from catalogues, people and language models, so no string gets into a page unescaped by
forgetting something. Not here: what the page says and how it looks.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias, Union

_VOID = frozenset({"br", "input", "meta"})


class Markup(str):
    """HTML that may be put into a page as it is."""

    __slots__ = ()


Child: TypeAlias = Union[str, int, "Iterable[Child]", None]
Attribute: TypeAlias = str | int | float | bool | None


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """One element. Children that are no `Markup` are escaped, None is left out.

    Attributes: `class_` is written `class`, `data_id` `data-id`; True writes the bare name, None and False nothing.
    """
    opened = f"<{name}{_written(attributes)}>"
    return Markup(opened) if name in _VOID else Markup(f"{opened}{markup(children)}</{name}>")


def markup(children: Child) -> Markup:
    """Children one after the other."""
    if children is None:
        return Markup("")
    if isinstance(children, Markup):
        return children
    if isinstance(children, str):
        return Markup(escape(children))
    if isinstance(children, int):
        return Markup(children)
    return Markup("".join(markup(child) for child in children))


def _written(attributes: dict[str, Attribute]) -> str:
    parts = []
    for name, value in attributes.items():
        plain = name.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(f" {plain}")
        elif value is not None and value is not False:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            parts.append(f' {plain}="{escape(text)}"')
    return "".join(parts)
