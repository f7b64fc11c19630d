"""The head of a report: what it is of, how to read it, and the dictionary's figures beside their controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from recsae.concepts.estimates import Estimate
from recsae.concepts.origins import Lineage
from recsae.concepts.report.markup import Child, Markup, tag
from recsae.concepts.report.material import STANDINGS, Material
from recsae.concepts.report.wording import interval, percent, score, section

_CLASSES = (
    ("verified", "Verified", "of live concepts: a facet rule that holds on users nobody looked at before"),
    ("semantic", "Semantic", "of live concepts: verified, and holding on unseen items too"),
    ("confident", "Confident", "of live concepts: F1 of at least .5 where classes are as frequent as in real traffic"),
    ("item_set", "Item sets", "of live concepts: they only name a few items; never part of the verified"),
    ("too_rare", "Too rare", "of live concepts: not judged, for want of cases"),
)
_TOLD = {name for name, _, _ in _CLASSES} | {
    "width",
    "live",
    "dead",
    "enough_cases",
    "swapped_labels_verified_share",
    "trained_minus_control",
    "described_ndcg",
}


def head(material: Material) -> Markup:
    """Title, versions and dates."""
    dictionary, facts = material.dictionary, material.facts
    told = (
        ("Channel", facts.channel),
        ("Model version", dictionary.model_version),
        ("SAE", dictionary.sae_version),
        ("Dictionary", dictionary.version),
        ("Data set", facts.dataset_version),
        ("Hook", facts.hook),
        ("Published", facts.published_at),
        ("Written", facts.written_at),
        ("By", facts.release),
    )
    rows = [tag("div", tag("dt", name), tag("dd", value)) for name, value in told if value]
    return tag(
        "header",
        tag("p", "Concept report", class_="kicker"),
        tag("h1", f"What “{facts.model}” has learned" if facts.model else "What this model has learned"),
        tag("dl", rows, class_="facts"),
    )


def how_to_read() -> Markup:
    """What the page shows and what its words mean, for someone who has never seen one."""
    words = [
        tag("div", tag("dt", tag("span", name, class_=f"chip {style}")), tag("dd", meaning))
        for name, style, meaning in STANDINGS
    ]
    return section(
        "How to read this",
        tag(
            "div",
            tag(
                "p",
                "A recommender turns each history into a list of numbers. A sparse autoencoder (SAE) rewrites that "
                "list as a few ",
                tag("em", "concepts"),
                " out of many. Each concept got a label from what makes it fire for one part of the users, and the "
                "label was then tested on users it was not built from. A score means little alone, so each stands "
                "beside a control: what a label that is wrong, or a network that learned nothing, reaches.",
            ),
            tag(
                "p",
                tag("strong", "Confidence"),
                " is the lower end of the 95 % interval of F1 at the natural mix, from 0 to 1: false alarms count as "
                "often as real traffic causes them. ",
                tag("strong", "Strength"),
                " 1 means a concept fires as strongly as in its strongest twentieth. ",
                tag("strong", "Deciding item"),
                ": the item of a history whose absence lowers the strength most; it is marked.",
            ),
            tag("dl", words, class_="words"),
            class_="reading",
        ),
        id_="reading",
    )


def figures_beside_controls(material: Material) -> Markup:
    """One card per class of the summary, each with its control; everything else the summary holds, in a table."""
    summary = material.dictionary.summary
    cards = [_live_card(summary)] if "live" in summary else []
    described = summary.get("described_ndcg")
    if isinstance(described, Mapping) and "score" in described:
        cards.append(_described_card(described))
    cards += [_class_card(summary, *one) for one in _CLASSES if isinstance(summary.get(one[0]), Mapping)]
    if lineage := material.dictionary.lineage:
        cards.append(_kept_card(lineage))
    further = [(name, value) for name, value in _flat(summary) if name.partition(".")[0] not in _TOLD]
    table = _further(further) if further else None
    return section("At a glance", tag("div", cards, class_="cards"), table, id_="glance")


def _live_card(summary: Mapping[str, Any]) -> Markup:
    of = f"of {summary['width']:,} latents fire; " if "width" in summary else ""
    dead = f"{summary.get('dead', 0):,} never do"
    judged = f"{summary['enough_cases']:,} have enough cases to be judged" if "enough_cases" in summary else None
    return _card("Live concepts", f"{summary['live']:,}", f"{of}{dead}.", [judged])


def _described_card(described: Mapping[str, Any]) -> Markup:
    """Of the plain numbers of `recsae.concepts.described`: by side, a value with its interval."""
    beside = [
        f"{words} {score(described[name]['value'])}"
        for name, words in (
            ("described", "ranking from descriptions alone keeps"),
            ("sae", "the SAE itself"),
            ("permuted", "descriptions of other concepts"),
            ("linear", "facets without an SAE"),
        )
        if name in described
    ]
    own = Estimate(**described["score"])
    notes: list[str | None] = [f"95 % interval {score(own.low)} to {score(own.high)}"]
    if "linear_score" in described:
        notes.append(f"Facets without an SAE, at equal length: {interval(Estimate(**described['linear_score']))}")
    return _card(
        "Described NDCG",
        score(own.value),
        "of the way from wrong descriptions to the SAE itself, when each concept is replaced by what its label says.",
        [*notes, "NDCG@10 kept: " + "; ".join(beside)],
    )


def _kept_card(lineage: Lineage) -> Markup:
    verified = [fate for fate in lineage.fates if fate.verified]
    kept = sum(fate.kept is True for fate in verified)
    note = f"{kept:,} of {len(verified):,} verified concepts of dictionary {lineage.ancestors[0]}"
    chance = f"In an unrelated dictionary {percent(lineage.by_chance)} of latents would be matched."
    meaning = "of what was verified before the last refresh is here again, and its old rule still holds."
    return _card("Kept", percent(kept / max(1, len(verified))), meaning, [note], [chance])


def _class_card(summary: Mapping[str, Any], name: str, title: str, meaning: str) -> Markup:
    figures = summary[name]
    notes: list[str | None] = [f"{figures['count']:,} concepts"]
    if "share_of_mass" in figures:
        notes.append(f"{percent(figures['share_of_mass'])} of activation")
    if "share_of_score_mass" in figures:
        notes.append(f"{percent(figures['share_of_score_mass'])} of what moves scores")
    control = (summary.get("trained_minus_control") or {}).get(name)
    beside: list[Child] = []
    if control:
        gap = 100 * control["difference"]
        ends = f"[{100 * control['low']:+.1f}, {100 * control['high']:+.1f}]"
        beside.append(f"Untrained network: {percent(control['control'])}; trained is {gap:+.1f} points {ends} away.")
    elif name != "too_rare":
        beside.append("No untrained control was run.")
    if name == "verified" and "swapped_labels_verified_share" in summary:
        swapped = percent(summary["swapped_labels_verified_share"])
        beside.append(f"With a wrong label each (swapped): {swapped}.")
    value = percent(figures["share_of_live"])
    return _card(title, value, meaning + ".", [", ".join(note for note in notes if note)], beside)


def _card(title: str, value: str, meaning: str, notes: list[str | None], beside: Child = None) -> Markup:
    controls = [tag("p", one, class_="beside") for one in beside] if isinstance(beside, list) else None
    return tag(
        "div",
        tag("h3", title),
        tag("p", value, class_="value"),
        tag("p", meaning),
        [tag("p", note, class_="note") for note in notes if note],
        controls,
        class_="card",
    )


def _further(figures: list[tuple[str, Any]]) -> Markup:
    rows = [
        tag("tr", tag("th", name.replace("_", " "), scope="row"), tag("td", _plain(value))) for name, value in figures
    ]
    return tag(
        "details",
        tag("summary", "Further figures of the dictionary"),
        tag("table", tag("tbody", rows), class_="plain"),
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every number, text and truth value of nested mappings and lists, by its dotted name."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield from _flat({str(place): one for place, one in enumerate(value)}, f"{prefix}{name}.")
        elif value is not None and value != "":
            yield f"{prefix}{name}", value


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
