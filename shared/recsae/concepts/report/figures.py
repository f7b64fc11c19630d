"""The plots of a dictionary: what concepts are worth, where activation lies, how rare and how narrow they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.records import ConceptRecord, is_verified
from recsae.concepts.report.charts import Frame, Series, bars, figure, lines, vertical
from recsae.concepts.report.markup import Markup, markup, tag
from recsae.concepts.report.material import STANDINGS, Material, standing
from recsae.concepts.report.scales import linear, named, shares
from recsae.concepts.report.wording import percent, section

_CONFIDENT = 0.5
_BINS = 20
_HUNDREDTHS = 101


def figures(material: Material) -> Markup:
    """All plots; those that have nothing to show are left out."""
    drawn = [
        _composition(material),
        _confidence(material),
        _coverage(material),
        _concentration(material),
        _density(material),
        _deciding_items(material),
    ]
    return section("The dictionary in pictures", tag("div", drawn, class_="figures"), id_="pictures")


def _composition(material: Material) -> Markup | None:
    """Two stacked bars: live concepts by what they count as, by number and by activation."""
    if not material.live:
        return None
    rows = []
    for name, weights in (
        ("by count", {concept.id: 1 / len(material.live) for concept in material.live}),
        ("by activation", {concept.id: float(material.mass[concept.latent]) for concept in material.live}),
    ):
        parts = []
        for words, style, _ in STANDINGS:
            share = sum(weights[concept.id] for concept in material.live if standing(concept)[0] == words)
            if share > 0:
                text = percent(share) if share >= 0.16 else None
                title = f"{words}: {percent(share)}"
                parts.append(tag("span", text, class_=f"part {style}", style=f"width:{100 * share:.2f}%", title=title))
        rows.append(tag("div", tag("span", name, class_="row-name"), tag("div", parts, class_="stack"), class_="row"))
    keys = [tag("span", tag("i", class_=f"key {style}"), words) for words, style, _ in STANDINGS]
    caption = (
        "Live concepts by what they count as. A concept's share of activation is how often it fires times how strongly."
    )
    legend = tag("p", keys, class_="legend")
    return tag("figure", tag("h3", "What the concepts are worth"), legend, rows, tag("figcaption", caption))


def _confidence(material: Material) -> Markup | None:
    judged = material.judged
    if not judged:
        return None
    edges = np.linspace(0, 1, _BINS + 1)
    ours = _counts([concept.confidence for concept in judged], edges)
    swapped = _counts([concept.control_confidence for concept in judged], edges)
    top = max(*ours, *swapped, 1)
    frame = Frame(shares(), linear(0, top), "confidence: F1 at least this, on unseen users", "concepts")
    outline = [(float(edges[0]), 0.0), *zip(map(float, edges[:-1]), swapped, strict=True), (1.0, swapped[-1])]
    body = markup(
        [
            bars(frame, edges.tolist(), [("this label", "a", ours)]),
            lines(frame, [Series("labels of other concepts", outline, "control", steps=True)]),
            vertical(frame, _CONFIDENT, "confident"),
        ]
    )
    confident = sum(concept.confidence >= _CONFIDENT for concept in judged)
    beaten = sum(concept.confidence > concept.control_confidence for concept in judged)
    caption = (
        f"{confident} of {len(judged)} judged concepts reach .5; {beaten} do better than labels of other concepts that "
        "fire as often (95th percentile of up to 100 swaps)."
    )
    keys = (("own label", "a"), ("label swaps (control)", "control"))
    return figure("Confidence beside label swaps", caption, frame, body, keys)


def _coverage(material: Material) -> Markup | None:
    judged = material.judged
    if not judged:
        return None
    thresholds = np.linspace(0, 1, _HUNDREDTHS)
    mass = material.mass[[concept.latent for concept in judged]]

    def curve(name: str, style: str, values: Sequence[float]) -> Series:
        reached = (np.array(values)[None, :] >= np.maximum(thresholds, 1e-9)[:, None]) @ mass
        return Series(name, list(zip(thresholds.tolist(), reached.tolist(), strict=True)), style)

    frame = Frame(shares(), shares(), "threshold", "share of activation")
    series = [
        curve("balanced F1, lower bound", "b", [concept.balanced_f1.low for concept in judged]),
        curve("confidence (natural mix)", "a", [concept.confidence for concept in judged]),
        curve("label swaps (control)", "control", [concept.control_confidence for concept in judged]),
    ]
    natural = series[1].points
    marks = ((f".{digit}", natural[10 * digit][1]) for digit in (6, 7, 8, 9))
    found = ", ".join(f"{percent(reached)} at {mark}" for mark, reached in marks)
    caption = (
        f"How much of the activation lies in concepts whose label reaches a score. By confidence: {found}. Balanced F1 "
        "is kinder: it makes true and false cases equally frequent, so a label that always holds already gets .67."
    )
    return figure(
        "Activation covered by labels that hold", caption, frame, lines(frame, series),
        [(one.name, one.style) for one in series],
    )  # fmt: skip


def _concentration(material: Material) -> Markup | None:
    if len(material.live) < 2:
        return None
    every = np.sort(material.mass[[concept.latent for concept in material.live]])[::-1]
    verified = np.sort(material.mass[[concept.latent for concept in material.live if is_verified(concept)]])[::-1]

    def curve(name: str, style: str, mass: NDArray[np.float64]) -> Series:
        cumulated = np.cumsum(mass)
        return Series(name, [(0.0, 0.0), *((rank + 1.0, float(held)) for rank, held in enumerate(cumulated))], style)

    frame = Frame(linear(0, len(every)), shares(), "concepts, largest first", "share of activation")
    series = [curve("all live concepts", "c", every)] + ([curve("verified", "a", verified)] if len(verified) else [])
    half = int(np.searchsorted(np.cumsum(every), 0.5)) + 1
    caption = (
        f"{half} concepts hold half of all activation; the {len(verified)} verified ones hold "
        f"{percent(float(verified.sum()))}."
    )
    legend = [(one.name, one.style) for one in series]
    return figure("How concentrated activation is", caption, frame, lines(frame, series), legend)


def _density(material: Material) -> Markup | None:
    densities = [concept.density for concept in material.live if concept.density > 0]
    if not densities:
        return None
    low = math.floor(2 * math.log10(min(densities))) / 2
    edges = np.arange(low, 0.25, 0.5)
    frame_ticks = [(float(power), _power(power)) for power in range(math.floor(low), 1)]
    groups = _by_standing(material.live, edges, lambda concept: math.log10(max(concept.density, 1e-12)))
    tallest = max(sum(values) for values in zip(*(heights for _, _, heights in groups), strict=True))
    frame = Frame(
        named(float(edges[0]), float(edges[-1]), frame_ticks), linear(0, tallest), "share of positions", "concepts"
    )
    caption = f"How often concepts fire; the median one on {percent(float(np.median(densities)))} of positions."
    legend = [(name, style) for name, style, _ in groups]
    return figure("How often concepts fire", caption, frame, bars(frame, edges.tolist(), groups), legend)


def _deciding_items(material: Material) -> Markup | None:
    counted = [concept for concept in material.live if concept.effective_items >= 1]
    if not counted:
        return None
    most = max(concept.effective_items for concept in counted)
    edges = np.arange(0, math.ceil(2 * math.log10(max(most, 2)) + 1e-9) / 2 + 0.5, 0.25)
    groups = _by_standing(counted, edges, lambda concept: math.log10(concept.effective_items))
    tallest = max(sum(values) for values in zip(*(heights for _, _, heights in groups), strict=True))
    ticks = [(math.log10(value), f"{value:,}") for value in (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)]
    frame = Frame(
        named(0.0, float(edges[-1]), ticks), linear(0, tallest), "effective number of deciding items", "concepts"
    )
    few = sum(concept.effective_items < 3 for concept in counted)
    median = float(np.median([concept.effective_items for concept in counted]))
    caption = (
        f"How many different items make a concept fire, before repeats are taken out of the evidence: the median is "
        f"{median:.0f}; {few} concepts hang on fewer than three."
    )
    legend = [(name, style) for name, style, _ in groups]
    return figure("How narrow concepts are", caption, frame, bars(frame, edges.tolist(), groups), legend)


def _by_standing(
    concepts: Sequence[ConceptRecord], edges: NDArray[np.float64], value: Callable[[ConceptRecord], float]
) -> list[tuple[str, str, list[float]]]:
    """Counts per bin of every standing that occurs."""
    groups = []
    for words, style, _ in STANDINGS:
        mine = [value(concept) for concept in concepts if standing(concept)[0] == words]
        if mine:
            groups.append((words, style, _counts(mine, edges)))
    return groups


def _counts(values: Sequence[float], edges: NDArray[np.float64]) -> list[float]:
    return [float(count) for count in np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]]


def _power(power: int) -> str:
    return percent(10.0**power).replace(".0 ", " ") if power >= -2 else f"{100 * 10.0**power:g} %"
