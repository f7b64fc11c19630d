"""Words for rules: labels for people and the exact predicate as text.

"Recent: Horror, 1980s, not Comedy" for literals, "1970s Sci-Fi, any of: Star Wars (1977), ..." for item sets. Not here:
what the rule is (`rules`) and whether it holds (`verification`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from recsae.concepts.literals import BEFORE, LAST, POPULARITY, RECENT, USUAL
from recsae.concepts.records import FacetLift, ItemScore, LiteralRecord, RuleRecord
from recsae.datasets.facets import BOTH, FacetTable

UNDESCRIBED = "Undescribed"
# Recency-weighted shares from which a facet is most, and nearly all, of what was consumed lately.
_MOSTLY, _NEARLY_ALL = 0.55, 0.8
# Over the newest forty items a quarter is a strong taste already.
_OFTEN = 0.2
_OUTPUT_FACETS = 3
# What items share names a set: facets that at least two thirds of them carry, the rarest two.
_SHARED, _NAMED_BY = 2 / 3, 2
_UNTELLING = ("popularity", "title")
_BAND = re.compile(r"band (?P<number>\d+) of (?P<count>\d+)")


def label_of(rule: RuleRecord, titles: Mapping[str, str], shared: str = "") -> str:
    """A label for people; `titles` by item id; `shared` names what the items of a set have in common.

    "Undescribed" for an empty rule.
    """
    if rule.item_ids:
        named = ", ".join(titles.get(item_id) or item_id for item_id in rule.item_ids)
        if len(rule.item_ids) == 1:
            return f"Just seen: {named}"
        return f"{shared}, any of: {named}" if shared else f"Any of: {named}"
    if not rule.literals:
        return UNDESCRIBED
    text = ""
    group = ""
    for literal in rule.literals:
        heading, phrase = _phrase(literal)
        if not text:
            text, group = (f"{heading}: {phrase}" if heading else phrase), heading
            continue
        same = heading == group or not heading
        phrase = phrase if same else f"{heading.lower()} {phrase}"
        text += {"and": ", ", "and not": ", not ", "or": " or "}[literal.joined] + phrase
    return text[:1].upper() + text[1:]


def predicate_of(rule: RuleRecord) -> str:
    """The rule as exact text; "" for an empty rule."""
    if rule.item_ids:
        return f"one of {{{', '.join(rule.item_ids)}}} among the newest {rule.window}"
    text = ""
    for step, literal in enumerate(rule.literals):
        inside = f"({text})" if step > 1 else text
        text = f"{inside} {literal.joined} {_exact(literal)}" if step else _exact(literal)
    return text


def output_label_of(facets: Sequence[FacetLift], promoted: Sequence[ItemScore]) -> str:
    """What the concept promotes: its most over-represented facets, else its first two promoted items."""
    if facets:
        return ", ".join(facet_name(facet.facet) for facet in facets[:_OUTPUT_FACETS])
    return ", ".join(item.title or item.item_id for item in promoted[:2])


def shared_facets(items: Sequence[int], facets: FacetTable) -> str:
    """What at least two thirds of `items` (indices from 1) carry: the rarest two facets, "" for none."""
    carried = np.asarray(facets.matrix[list(items)].mean(axis=0)).ravel() if len(items) > 1 else np.zeros(0)
    common = [at for at in np.flatnonzero(carried >= _SHARED).tolist() if facets.families[at] not in _UNTELLING]
    size = np.asarray(facets.matrix.sum(axis=0)).ravel()
    kept = sorted(common, key=lambda at: size[at])[:_NAMED_BY]
    return ", ".join(facet_name(facets.names[at]) for at in kept)


def facet_name(facet: str) -> str:
    """A facet for people.

    "genre=Horror" -> "Horror", 'title=star' -> '"star" in the title', "decade=1980s ∩ genre=Horror" -> "1980s Horror",
    "like=Alien; Aliens" -> "like Alien; Aliens".
    """
    if BOTH in facet:
        return " ".join(facet_name(part) for part in facet.split(BOTH))
    family, _, value = facet.partition("=")
    if family == "like":
        return f"like {value}"
    if family == "title":
        return f'"{value}" in the title'
    if family == "popularity":
        return _popularity(value)
    return value or facet


def _popularity(band: str) -> str:
    """The words of a popularity band "band X of N" (`recsae.datasets.facets`)."""
    found = _BAND.fullmatch(band)
    if found is None or found["number"] not in ("1", found["count"]):
        return f"popularity {band}"
    return "popular items" if found["number"] == found["count"] else "rare items"


def _phrase(literal: LiteralRecord) -> tuple[str, str]:
    if literal.kind == RECENT:
        return _amount(literal.threshold), facet_name(literal.facet)
    if literal.kind == USUAL:
        return "Often" if literal.threshold >= _OFTEN else "At times", facet_name(literal.facet)
    if literal.kind in (LAST, BEFORE):
        return "Last" if literal.kind == LAST else "Last but one", facet_name(literal.facet)
    if literal.kind == POPULARITY:
        return "", "newest item popular"
    return "", f"{literal.threshold:.0f} items or more"


def _amount(share: float) -> str:
    if share >= _NEARLY_ALL:
        return "Nearly all"
    return "Mostly" if share >= _MOSTLY else "Recent"


def _exact(literal: LiteralRecord) -> str:
    if literal.kind in (RECENT, USUAL):
        return f"{literal.kind}[{literal.facet}] >= {literal.threshold:g}"
    if literal.kind in (LAST, BEFORE):
        return f"{literal.kind}[{literal.facet}]"
    if literal.kind == POPULARITY:
        return f"ln(1 + count of the newest item) >= {literal.threshold:.3g}"
    return f"length >= {literal.threshold:.0f}"
