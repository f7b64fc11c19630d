"""One concept in a report: in full, or in a few lines. What is not known about it is left out."""

from __future__ import annotations

from collections.abc import Sequence

from recsae.concepts.estimates import UNKNOWN, Estimate
from recsae.concepts.records import (
    ConceptRecord,
    ConceptStatus,
    Evidence,
    FacetLift,
    ItemScore,
    LabelSource,
    Neighbour,
)
from recsae.concepts.report.causes import causes
from recsae.concepts.report.markup import Child, Markup, tag
from recsae.concepts.report.material import Material, is_judged
from recsae.concepts.report.wording import block, chip, interval, link, named, percent, score, table
from recsae.concepts.report.words_of_models import language_model
from recsae.concepts.thresholds import Standing

_SHORT_ITEMS = 5
_LIFTS = 8
_AUTHORS = {LabelSource.RULES: "", LabelSource.LLM: "label by a language model", LabelSource.HUMAN: "label by a person"}


def in_full(material: Material, concept: ConceptRecord) -> Markup:
    """Everything there is about a concept."""
    blocks = (
        _evidence("What makes it fire", concept.evidence, "strongest histories, distinct users and items; newest last"),
        _scores(concept),
        _items("Promotes", concept.promoted, concept.output_label),
        _items("Suppresses", concept.suppressed, ""),
        _facets("Facets of what makes it fire", concept.input_facets),
        _facets("Facets of what it promotes", concept.output_facets),
        _evidence("Firings drawn at random", concept.random_evidence, "what it is usually like, strong or weak"),
        _bands(concept),
        _evidence("Near misses", concept.near_misses, "histories on which it almost fired"),
        _neighbours("Fires together with", concept.neighbours, material),
        _neighbours("Points the same way as", concept.decoder_neighbours, material, "cosine of decoder rows"),
        causes(concept.causal),
        language_model(concept.llm),
        _origin(material, concept),
        _further_scores(concept),
    )
    return tag("article", _head(concept), _key_figures(material, concept), tag("div", blocks, class_="blocks"),
               id=concept.id, class_="concept")  # fmt: skip


def in_short(material: Material, concept: ConceptRecord) -> Markup:
    """Label, rule, figures, one history and what it promotes."""
    mass = percent(float(material.mass[concept.latent]))
    facts = [f"confidence {score(concept.confidence)}, control {score(concept.control_confidence)}"]
    facts = [
        *(facts if is_judged(concept) else ["not judged"]),
        f"{mass} of activation",
        f"fires on {percent(concept.density)}",
    ]
    history = _history(concept.evidence[0]) if concept.evidence else None
    promoted = " · ".join(item.title or item.item_id for item in concept.promoted[:_SHORT_ITEMS])
    return tag(
        "article",
        _head(concept),
        tag("p", ", ".join(facts), class_="facts-line"),
        tag("p", tag("span", "fires on ", class_="what"), history) if history else None,
        tag("p", tag("span", "promotes ", class_="what"), promoted) if promoted else None,
        id=concept.id,
        class_="concept short",
    )


def _head(concept: ConceptRecord) -> Markup:
    about = [f"{concept.id} · latent {concept.latent}", _AUTHORS[concept.label_source]]
    meta = tag("p", chip(concept), *(tag("span", words) for words in about if words), class_="meta")
    rule = tag("p", tag("code", concept.predicate), class_="rule") if concept.predicate else None
    before = tag("p", f"The rules called it: {concept.machine_label}", class_="note") if concept.machine_label else None
    note = tag("p", concept.note, class_="note") if concept.note else None
    return tag("header", tag("h3", named(concept)), meta, before, note, rule)


def _key_figures(material: Material, concept: ConceptRecord) -> Markup:
    judged = is_judged(concept)
    figures: tuple[tuple[str, str], ...] = (
        ("confidence", score(concept.confidence) if judged else ""),
        ("label swaps", score(concept.control_confidence) if judged else ""),
        ("of activation", percent(float(material.mass[concept.latent]))),
        ("of positions", percent(concept.density)),
        ("cases", f"{concept.positives:,}"),
        ("users", f"{concept.users:,}"),
        ("deciding items", f"{concept.effective_items:,.1f}" if concept.effective_items else ""),
        ("value at strength 1", f"{concept.p95:.3g}"),
    )
    return tag(
        "dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in figures if value], class_="key-figures"
    )


def _scores(concept: ConceptRecord) -> Markup | None:
    extra = concept.scores
    always = extra.get("always_true_f1")
    rows: list[tuple[str, Estimate, str, float | None]] = [
        ("Precision", concept.precision, "share that fire", extra.get("prevalence")),
        ("Recall", concept.recall, "", None),
        ("F1, natural mix", concept.f1, "label swaps", concept.control_confidence),
        ("F1, balanced", concept.balanced_f1, "label swaps", extra.get("swap_balanced_f1")),
        ("F1, matched negatives", concept.matched_f1, "", None),
        ("F1, hard negatives", concept.hard_f1, "", None),
    ]
    shown = [
        [
            name,
            _track(one, control),
            interval(one),
            f"{words} {score(control)}" if control is not None else "",
        ]
        for name, one, words, control in rows
        if one != UNKNOWN
    ]
    if not shown:
        return None
    beside = [
        f"{words} {score(value)}"
        for words, value in (
            ("a label that always holds", always),
            ("the best rule from popularity alone", extra.get("popularity_f1")),
            ("balanced, on unseen items only", extra.get("unseen_balanced_f1")),
        )
        if value is not None
    ]
    note = tag("small", "F1 of " + "; ".join(beside) + ".") if beside else None
    judged = tag("div", table(("Score", "", "95 % interval", "Control"), shown, numeric=(2,)), class_="scores")
    return block("Does the label hold on unseen users?", judged, _misses(concept), note)


def _misses(concept: ConceptRecord) -> Markup | None:
    """What keeps the label from being verified."""
    standing = None if concept.status is ConceptStatus.VERIFIED else Standing.of(concept)
    why = standing.misses() if standing else []
    return tag("p", f"Not verified: {'; '.join(why)}.", class_="note") if why else None


def _track(one: Estimate, control: float | None) -> Markup:
    """An interval on a line from 0 to 1, its control as a notch."""
    low, high = max(0.0, one.low), min(1.0, one.high)
    bar = tag("b", style=f"left:{100 * low:.1f}%;width:{max(1.0, 100 * (high - low)):.1f}%")
    notch = tag("i", style=f"left:{100 * min(1.0, max(0.0, control)):.0f}%") if control is not None else None
    return tag("span", bar, notch, class_="track", aria_hidden="true")


def _evidence(title: str, evidence: Sequence[Evidence], note: str) -> Markup | None:
    rows = [tag("li", tag("span", f"{one.strength:.2f}", class_="strength"), _history(one)) for one in evidence]
    return block(title, tag("ol", rows, class_="histories"), note=note) if rows else None


def _history(evidence: Evidence) -> Markup:
    parts: list[Child] = []
    for item in evidence.items:
        parts += [" · " if parts else None, _item(item.title or item.item_id, item.drop, item.deciding)]
    return tag("span", parts, class_="history")


def _item(title: str, drop: float, deciding: bool) -> Child:
    if not deciding:
        return title
    return tag("mark", title, title=f"deciding: without it the strength falls by {percent(drop)}")


def _bands(concept: ConceptRecord) -> Markup | None:
    rows = [
        [f"{band.low:.2f} to {band.high:.2f}", f"{band.firings:,}", _history(band.example) if band.example else ""]
        for band in concept.bands
    ]
    columns = ("Strength", "Firings", "One of them")
    return block("From weak to strong", table(columns, rows, numeric=(1,))) if rows else None


def _items(title: str, items: Sequence[ItemScore], label: str) -> Markup | None:
    rows = [tag("li", item.title or item.item_id, " ", tag("small", f"{item.score:+.2f}")) for item in items]
    note = f"by label: {label}" if label else "score per unit of the latent"
    return block(title, tag("ol", rows, class_="items"), note=note) if rows else None


def _facets(title: str, lifts: Sequence[FacetLift]) -> Markup | None:
    rows = [
        tag("li", one.facet, " ", tag("small", f"{one.log_odds:+.1f}, at least {one.low:+.1f}"))
        for one in lifts[:_LIFTS]
    ]
    return (
        block(title, tag("ul", rows, class_="items"), note="log-odds against items of like popularity")
        if rows
        else None
    )


def _neighbours(
    title: str, near: Sequence[Neighbour], material: Material, note: str = "firing correlation"
) -> Markup | None:
    rows = [
        tag("li", link(one.concept_id, one.label or one.concept_id), " ", tag("small", f"{one.correlation:+.2f}"))
        for one in near
    ]
    return block(title, tag("ul", rows, class_="items"), note=note) if rows else None


def _origin(material: Material, concept: ConceptRecord) -> Markup | None:
    origin = concept.origin
    if origin is None:
        return None
    known = {one.id for one in material.live}
    before = [link(one, one) if one in known else one for one in origin.from_ids]
    kept = {None: None, True: "its old rule still holds", False: "its old rule no longer holds"}[origin.kept]
    signals = f"cosine {score(origin.cosine)}, firing correlation {score(origin.correlation)}" if before else None
    parts: list[Child] = [tag("strong", origin.status)]
    if before:
        parts += [", carries on ", *(part for one in before for part in (one, " "))]
    rest = "; ".join(words for words in (signals, kept, origin.doubt and f"in doubt: {origin.doubt}") if words)
    return block("Since the refresh before", tag("p", parts, f" ({rest})" if rest else None))


def _further_scores(concept: ConceptRecord) -> Markup | None:
    """Every score by the name docs/method.md explains it under."""
    rows = [[name.replace("_", " "), f"{value:,.4g}"] for name, value in sorted(concept.scores.items())]
    if not rows:
        return None
    numbers = table(("Score", "Value"), rows, numeric=(1,))
    return block("Every score", tag("details", tag("summary", f"{len(rows)} scores by name"), numbers))
