"""The table of all live concepts. It is whole without JavaScript; a few lines of it add sorting and filtering."""

from __future__ import annotations

from collections.abc import Sequence

from recsae.concepts.records import ConceptRecord
from recsae.concepts.report.markup import Markup, tag
from recsae.concepts.report.material import STANDINGS, Material, is_judged, standing
from recsae.concepts.report.wording import chip, link, named, percent, score, scrolled, section

_COLUMNS = (
    ("Concept", ""),
    ("Standing", ""),
    ("Confidence", "lower bound of F1, natural mix"),
    ("Control", "the same for labels of other concepts"),
    ("Balanced F1", "lower bound"),
    ("Activation", "share of all activation"),
    ("Fires on", "share of positions"),
    ("Cases", "on unseen users"),
    ("Deciding items", "effective number"),
    ("Promotes", ""),
)
_TEXT_COLUMNS = (0, 1, 9)
_FILTER_HINT = "word in a label, rule or id"


def listing(material: Material) -> Markup:
    """One row per live concept, the most trustworthy first."""
    count = len(material.live)
    lead = f"All {count:,} live concepts, the most trustworthy first. Confidence is worth what it has over its control."
    controls = tag(
        "div",
        tag("label", "Find ", tag("input", type="search", id="find", placeholder=_FILTER_HINT)),
        tag("label", "Standing ", tag("select", _options(), id="standing")),
        tag("output", f"{count:,} concepts", id="found", aria_live="polite"),
        class_="controls",
        id="controls",
        hidden=True,
    )
    heads = [
        tag(
            "th", name, tag("small", hint) if hint else None, scope="col", class_=None if at in _TEXT_COLUMNS else "num"
        )
        for at, (name, hint) in enumerate(_COLUMNS)
    ]
    rows = [_row(material, concept) for concept in material.live]
    table = tag("table", tag("thead", tag("tr", heads)), tag("tbody", rows), id="concepts-table")
    return section("All concepts", controls, scrolled(table, "Table of concepts"), lead=lead, id_="concepts")


def _options() -> list[Markup]:
    return [tag("option", "all", value=""), *(tag("option", words, value=words) for words, _, _ in STANDINGS)]


def _row(material: Material, concept: ConceptRecord) -> Markup:
    mass = float(material.mass[concept.latent])
    numbers: Sequence[tuple[float, str | Markup]] = (
        (concept.confidence, _meter(concept)),
        (concept.control_confidence, score(concept.control_confidence) if is_judged(concept) else ""),
        (concept.balanced_f1.low, score(concept.balanced_f1.low) if is_judged(concept) else ""),
        (mass, percent(mass)),
        (concept.density, percent(concept.density)),
        (concept.positives, f"{concept.positives:,}"),
        (concept.effective_items, f"{concept.effective_items:,.0f}" if concept.effective_items else ""),
    )
    cells = [tag("td", text, data_v=float(value), class_="num") for value, text in numbers]
    label = tag("th", link(concept.id, named(concept)), scope="row")
    return tag(
        "tr", label, tag("td", chip(concept)), cells, tag("td", concept.output_label),
        data_s=standing(concept)[0], data_t=f"{concept.id} {concept.predicate}".strip().lower(),
    )  # fmt: skip


def _meter(concept: ConceptRecord) -> Markup | str:
    """Confidence as a bar with the control as a notch."""
    if not is_judged(concept):
        return ""
    notch = tag("i", style=f"left:{100 * min(1.0, concept.control_confidence):.0f}%")
    bar = tag("b", style=f"width:{100 * min(1.0, concept.confidence):.0f}%")
    return Markup(tag("span", bar, notch, class_="meter", aria_hidden="true") + score(concept.confidence))
