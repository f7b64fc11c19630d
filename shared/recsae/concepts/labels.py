"""Words for rules: labels for people and the exact predicate as text.

"Recent: Horror, 1980s, not Comedy" for literals, "1970s Sci-Fi, any of: Star Wars (1977); ..." for item sets. Not here:
what the rule is (`rules`) and whether it holds (`verification`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from recsae.concepts.literals import BEFORE, LAST, POPULARITY, RECENT, USUAL
from recsae.concepts.records import FacetLift, ItemScore, LiteralRecord, RuleRecord
from recsae.concepts.saying_less import shortest
from recsae.datasets.facet_names import BOTH, LIKE
from recsae.datasets.facets import FacetTable

UNDESCRIBED = "Undescribed"
# Recency-weighted shares from which a facet is most, and nearly all, of what was consumed lately.
_MOSTLY, _NEARLY_ALL = 0.55, 0.8
# Over the newest forty items a quarter is a strong taste already.
_OFTEN = 0.2
# Shares below which "hardly any" is left over forty items ("seldom" from there to often), and "no" or "little" of ten.
_SELDOM, _LITTLE = 0.1, 0.25
_OUTPUT_FACETS = 3
# What items share names a set: facets that at least two thirds of them carry, the rarest two.
_SHARED, _NAMED_BY = 2 / 3, 2
_LIKE, _HISTORY = "like ", "a history of "
_UNTELLING = ("popularity", "title")
_BAND = re.compile(r"band (?P<number>\d+) of (?P<count>\d+)")
_BANDS = ("rare items", "little-known items", "well-known items", "popular items")
# A count is found again from the float32 of its logarithm to about one part in a million.
_ROUNDING = 3e-6


def label_of(rule: RuleRecord, titles: Mapping[str, str], shared: str = "") -> str:
    """A label for people; `titles` by item id; `shared` names what the items of a set have in common.

    What follows from the rest is not said. "Undescribed" for an empty rule.
    """
    if rule.item_ids:
        # Titles hold commas.
        named = "; ".join(titles.get(item_id) or item_id for item_id in rule.item_ids)
        if len(rule.item_ids) == 1:
            return f"Just seen: {named}"
        return f"{shared[:1].upper()}{shared[1:]}, any of: {named}" if shared else f"Any of: {named}"
    if not rule.literals:
        return UNDESCRIBED
    first, *others = shortest(rule).literals
    heading, phrase = _phrase(first)
    text = f"{heading}: {phrase}" if heading else phrase
    said = [first]
    for literal in others:
        link = _link(literal.joined, {one.joined for one in said})
        # After a stronger mark a heading is said again.
        text += link + _further(literal, said, heading="" if link.startswith(";") else heading)
        said.append(literal)
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
    return "; ".join(item.title or item.item_id for item in promoted[:2])


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
    "like=Alien; Aliens" -> "like “Alien” / “Aliens”".
    """
    if BOTH in facet:
        return " ".join(facet_name(part) for part in facet.split(BOTH))
    family, _, value = facet.partition("=")
    if family == LIKE:
        return _LIKE + " / ".join(f"“{title}”" for title in value.split("; "))
    if family == "title":
        return f'"{value}" in the title'
    if family == "popularity":
        return _popularity(value)
    return value or facet


def _popularity(band: str) -> str:
    """The words of a popularity band "band X of N" (`recsae.datasets.facets`); 1 is the rarest."""
    found = _BAND.fullmatch(band)
    if found is None:
        return f"popularity {band}"
    number, count = int(found["number"]), int(found["count"])
    if number in (1, count):
        return "rare items" if number == 1 else "popular items"
    words = "little-known items" if 2 * number <= count else "well-known items"
    return words if count == len(_BANDS) else f"{words} ({band})"


def _link(joined: str, said: set[str]) -> str:
    """What stands between two literals: a comma binds more closely than an "or" that follows it, and says so."""
    mixed = said - {"", "or"} if joined == "or" else said & {"or"}
    if joined == "or":
        return "; or " if mixed else " or "
    return "; and " if mixed else ", "


def _further(literal: LiteralRecord, said: Sequence[LiteralRecord], heading: str) -> str:
    """A literal after those `said`; under `heading` it needs none of its own that is the same."""
    negated = literal.joined == "and not"
    if not literal.facet:
        words = _number(literal, negated=negated)
        twice = any(one.kind == literal.kind for one in said)
        return words.removeprefix(_HISTORY) if twice else words
    own, name = _phrase(literal)
    if not negated:
        return name if own == heading else f"{own.lower()} {name}"
    if literal.kind in (LAST, BEFORE):
        return f"not {name}" if own == heading else f"{own.lower()} not {name}"
    if any((one.kind, one.facet) == (literal.kind, literal.facet) for one in said):
        return f"but under {literal.threshold:.0%}".replace("%", " %")
    return _without(literal, own, name)


def _without(literal: LiteralRecord, heading: str, name: str) -> str:
    """A share of a facet ruled out, by how much of it is too much."""
    amount, several = literal.threshold, name.startswith(_LIKE) or name in _BANDS
    noun = f"things {name}" if name.startswith(_LIKE) else name
    if literal.kind == USUAL and amount < _OFTEN:
        return f"{'hardly any' if amount < _SELDOM else 'seldom'} {noun}"
    if literal.kind == RECENT and amount < _MOSTLY:
        return f"{'no' if amount < _LITTLE else 'few' if several else 'little'} recent {noun}"
    return f"not {heading.lower()} {noun}"


def _phrase(literal: LiteralRecord) -> tuple[str, str]:
    """Heading and words of a literal; no heading for one about popularity or length."""
    if not literal.facet:
        return "", _number(literal)
    name = facet_name(literal.facet)
    if literal.kind == RECENT:
        return _amount(literal.threshold), name
    if literal.kind == USUAL:
        return "Often" if literal.threshold >= _OFTEN else "At times", name
    # One item: "Last: popular item".
    name = name.removesuffix("s") if name in _BANDS else name
    return "Last" if literal.kind == LAST else "Last but one", name


def _number(literal: LiteralRecord, *, negated: bool = False) -> str:
    if literal.kind == POPULARITY:
        times = f"{_least_count(literal.threshold):,} times"
        return f"newest item consumed fewer than {times}" if negated else f"newest item consumed {times} or more"
    length = f"{literal.threshold:.0f} items"
    return _HISTORY + (f"fewer than {length}" if negated else f"{length} or more")


def _least_count(threshold: float) -> int:
    """The least number of interactions c with ln(1 + c) >= `threshold`, which is a float32."""
    count = math.expm1(threshold)
    near = round(count)
    return near if abs(count - near) <= _ROUNDING * max(1, near) else math.ceil(count)


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
        return f"count of the newest item >= {_least_count(literal.threshold)}"
    return f"length >= {literal.threshold:.0f}"
