"""Numbers and small pieces of a report as people read them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from recsae.concepts.estimates import UNKNOWN, Estimate
from recsae.concepts.records import ConceptRecord
from recsae.concepts.report.markup import Child, Markup, tag
from recsae.concepts.report.material import standing


def percent(value: float) -> str:
    """A share as per cent: one digit, two below one per cent."""
    return f"{100 * value:.{1 if abs(value) >= 0.01 or value == 0 else 2}f} %"


def score(value: float) -> str:
    """A score with two digits and no zero in front: .83."""
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def interval(one: Estimate) -> str:
    """A value and its 95 % interval; "" when it was not computed."""
    return "" if one == UNKNOWN else f"{score(one.value)} [{score(one.low)}, {score(one.high)}]"


def chip(concept: ConceptRecord) -> Markup:
    """What the concept counts as, coloured."""
    words, style = standing(concept)
    return tag("span", words, class_=f"chip {style}")


def named(concept: ConceptRecord) -> str:
    """Its label, or what to call it without one."""
    return concept.label or f"latent {concept.latent}"


def link(concept_id: str, text: str) -> Markup:
    """A link to a concept of this page."""
    return tag("a", text, href=f"#{concept_id}")


def section(title: str, *children: Child, lead: Child = None, id_: str | None = None) -> Markup:
    """A part of the page with its heading and one sentence about it."""
    return tag("section", tag("h2", title), tag("p", lead, class_="lead") if lead else None, *children, id_=id_)


def block(title: str, *children: Child, note: str = "") -> Markup:
    """A part of a concept; `note` explains it in small print."""
    small = tag("small", note) if note else None
    return tag("div", tag("h4", title), small, *children, class_="block")


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Child]],
    *,
    numeric: Collection[int] = (),
    caption: str = "",
) -> Markup:
    """A table whose first cell of each row names the row; `numeric` columns (by number) are right-aligned."""
    styles = ["num" if at in numeric else None for at in range(len(columns))]
    heads = [tag("th", name, scope="col", class_=style) for name, style in zip(columns, styles, strict=True)]
    body = [
        tag(
            "tr",
            tag("th", first, scope="row"),
            [tag("td", cell, class_=style) for cell, style in zip(rest, styles[1:], strict=True)],
        )
        for first, *rest in rows
    ]
    above = tag("caption", caption) if caption else None
    return tag("table", above, tag("thead", tag("tr", heads)), tag("tbody", body))


def scrolled(inner: Markup, name: str) -> Markup:
    """Something wide or long in a frame that scrolls, by keyboard too."""
    return tag("div", inner, class_="scroll", tabindex=0, role="region", aria_label=name)
