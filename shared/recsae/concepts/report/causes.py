"""What turning concepts does, in a report: dose-response and safe ranges of one, the frontier of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from recsae.concepts.effects import CausalRecord, DoseEffect, SafeRange
from recsae.concepts.estimates import UNKNOWN, Estimate
from recsae.concepts.records import ConceptRecord
from recsae.concepts.report.charts import Frame, Series, figure, lines
from recsae.concepts.report.markup import Markup, tag
from recsae.concepts.report.material import Material
from recsae.concepts.report.scales import linear
from recsae.concepts.report.wording import block, interval, link, named, percent, scrolled, section, table

# What the next dose beyond a safe range breaks.
_LIMITS = {"ndcg": "then NDCG", "off_target": "then off target", "measured": "as far as measured"}
_CAPTION = (
    "Safe doses, and what is not safe beyond them: NDCG (more than 5 % of it may be lost) or off target (too much else "
    "changes)"
)
_STYLES = ("a", "b", "c", "d", "e")


def causes(record: CausalRecord | None) -> Markup | None:
    """Everything measured by turning one concept; None where nothing was."""
    if record is None:
        return None
    of = record.facet or "the items it promotes"
    parts = [
        f"Measured on {record.panel_users:,} users; shares are of {of}.",
        f"Half a strength added does more than {percent(record.null_percentile)} of random latents of like density "
        f"moved as far, and than {percent(record.direction_percentile)} of random directions.",
        "Input and output label name the same facet." if record.agreement else "Input and output label differ.",
    ]
    ranges = tag("ul", [tag("li", _range_words(one)) for one in record.safe_ranges], class_="items")
    return block(
        "What turning it does",
        tag("p", " ".join(parts)),
        ranges if record.safe_ranges else None,
        tag("div", [_dose_response(record, *one) for one in _by_operation(record.doses)], class_="figures small"),
        _doses(record.doses) if record.doses else None,
        note="nothing is fitted on panel users here",
    )


def steering(material: Material) -> Markup | None:
    """The frontier of all measured concepts and their safe ranges; None when none was measured."""
    measured = [concept for concept in material.live if concept.causal is not None and concept.causal.doses]
    if not measured:
        return None
    lead = (
        f"{len(measured)} concepts were turned on a fixed panel of users. What is gained is the share of the concept's "
        "facet among the first ten; what is paid is ranking quality."
    )
    plots = tag("div", _frontier(measured), class_="figures")
    handles = _handles(material)
    return section("What turning concepts costs", plots, _ranges(measured), handles, lead=lead, id_="steering")


def _handles(material: Material) -> Markup | None:
    """Facets turned by several concepts at once, at the largest safe dose of each."""
    rows = []
    for handle in material.dictionary.handles:
        safe = handle.safe_range
        best = max(
            (one for one in handle.doses if safe.low <= one.dose <= safe.high), key=lambda one: one.dose, default=None
        )
        concepts = [(link(one, one), " ") for one in handle.concept_ids]
        gains = [interval(best.facet_log_odds), interval(best.ndcg_kept)] if best else ["", ""]
        rows.append([handle.facet, "none" if safe.empty else f"{safe.low:.3g} to {safe.high:.3g}", *gains, concepts])
    if not rows:
        return None
    columns = ("Facet", "Safe doses", "Log-odds at the largest", "NDCG kept", "Concepts")
    return scrolled(table(columns, rows, caption="Handles: a facet by several concepts at once"), "Handles")


def _frontier(measured: Sequence[ConceptRecord]) -> Markup:
    by_operation: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for concept in measured:
        for dose in concept.causal.doses if concept.causal else ():
            by_operation[dose.operation].append((dose.facet_log_odds.value, dose.ndcg_kept.value))
    series = [
        Series(operation, points, _STYLES[at % len(_STYLES)], marks=True, joined=False)
        for at, (operation, points) in enumerate(sorted(by_operation.items()))
    ]
    xs, ys = zip(*(point for one in series for point in one.points), strict=True)
    frame = Frame(
        linear(min(*xs, 0.0), max(*xs, 0.0)), linear(min(*ys, 0.95), max(*ys, 1.0)),
        "change of the log-odds of the facet's share of the top 10", "NDCG@10 kept", width=720, height=320,
    )  # fmt: skip
    caption = (
        "One point per concept, operation and dose. Up and to the right is better: more of the facet for less quality. "
        "To the left are doses that show less of it."
    )
    return figure("Steering frontier", caption, frame, lines(frame, series), [(one.name, one.style) for one in series])


def _ranges(measured: Sequence[ConceptRecord]) -> Markup | None:
    """One row per concept, one column per operation."""
    found = {
        concept.id: {one.operation: one for one in concept.causal.safe_ranges} if concept.causal else {}
        for concept in measured
    }
    operations = sorted({operation for ranges in found.values() for operation in ranges})
    if not operations:
        return None
    rows = [
        [link(concept.id, named(concept)), *(_doses_of(found[concept.id].get(operation)) for operation in operations)]
        for concept in measured
        if found[concept.id]
    ]
    return scrolled(table(("Concept", *operations), rows, caption=_CAPTION), "Safe doses")


def _doses_of(one: SafeRange | None) -> Markup | str:
    if one is None:
        return ""
    why = tag("small", _LIMITS.get(one.limited_by, one.limited_by))
    if one.empty:
        return Markup(f"none {why}")
    # It has no dose to choose.
    return "allowed" if one.operation == "ablate" else Markup(f"{one.low:.3g} to {one.high:.3g} {why}")


def _range_words(one: SafeRange) -> str:
    why = _LIMITS.get(one.limited_by, one.limited_by)
    if one.empty:
        return f"{one.operation}: no dose is safe ({why})"
    if one.operation == "ablate":
        return "ablate: safe"
    return f"{one.operation}: {one.low:.3g} to {one.high:.3g} is safe ({why})"


def _by_operation(doses: Sequence[DoseEffect]) -> list[tuple[str, list[DoseEffect]]]:
    grouped: dict[str, list[DoseEffect]] = defaultdict(list)
    for one in doses:
        grouped[one.operation].append(one)
    return [(name, sorted(many, key=lambda one: one.dose)) for name, many in grouped.items() if len(many) > 1]


def _dose_response(record: CausalRecord, operation: str, doses: Sequence[DoseEffect]) -> Markup:
    """Two small plots side by side: what the dose brings and what it costs."""
    title = f"{operation}: {record.facet or 'promoted items'}"
    gain = _small(title, [("log-odds of the share", "a", [one.facet_log_odds for one in doses])], doses, (0.0,))
    columns = [
        ("all targets", "a", [one.ndcg_kept for one in doses]),
        ("inside the facet", "c", [one.ndcg_kept_inside for one in doses]),
        ("outside it", "b", [one.ndcg_kept_outside for one in doses]),
    ]
    return Markup(gain + _small(f"{operation}: NDCG@10 kept", columns, doses, (1.0,)))


def _small(
    title: str,
    columns: Sequence[tuple[str, str, Sequence[Estimate]]],
    doses: Sequence[DoseEffect],
    held: tuple[float, ...],
) -> Markup:
    known = [(name, style, values) for name, style, values in columns if any(one != UNKNOWN for one in values)]
    xs = [one.dose for one in doses]
    ends = [end for _, _, values in known for one in values for end in (one.low, one.high)] + list(held)
    frame = Frame(linear(min(xs), max(xs), 4), linear(min(ends), max(ends), 4), "dose", "", width=320, height=190)
    series = [
        Series(
            name, [(x, one.value) for x, one in zip(xs, values, strict=True)], style,
            low=[one.low for one in values], high=[one.high for one in values], marks=True,
        )
        for name, style, values in known
    ]  # fmt: skip
    return figure(title, "", frame, lines(frame, series), [(name, style) for name, style, _ in known[1:] and known])


def _doses(doses: Sequence[DoseEffect]) -> Markup:
    columns = ("Dose", "Log-odds of share", "NDCG kept", "inside", "outside", "Off target", "Lists changed")
    rows = []
    for one in doses:
        kept = (one.ndcg_kept, one.ndcg_kept_inside, one.ndcg_kept_outside)
        measured = [interval(value) for value in (one.facet_log_odds, *kept, one.off_target)]
        dose = one.operation if one.operation == "ablate" else f"{one.operation} {one.dose:.3g}"
        rows.append([dose, *measured, percent(one.lists_changed)])
    numbers = table(columns, rows, numeric=range(1, len(columns)))
    return tag("details", tag("summary", f"All {len(doses)} doses as numbers"), scrolled(numbers, "Doses"))
