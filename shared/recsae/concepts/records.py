"""What is known about one concept, as plain values, and their JSON form.

The same fields as `ConceptDetail` of the contract plus the named control scores. Not here: how any of it is computed
(`describing`, `verification`, `evidence`), the collection and its files (`dictionary`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from recsae.concepts.effects import CausalRecord, doses_as_rows, doses_from_rows
from recsae.concepts.estimates import UNKNOWN, Estimate
from recsae.concepts.origins import Origin


class ConceptStatus(StrEnum):
    """State of a concept."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    TOO_RARE = "too_rare"
    DEAD = "dead"


class ConceptKind(StrEnum):
    """Class of a concept's label; NONE for a latent nothing describes."""

    NONE = ""
    SEMANTIC = "semantic"
    ITEM_SET = "item_set"
    FACET = "facet"


@dataclass(frozen=True)
class EvidenceItem:
    """An item of an evidence sequence; `drop` = share of the strength lost when it is left out."""

    item_id: str
    title: str
    drop: float = 0.0
    deciding: bool = False


@dataclass(frozen=True)
class Evidence:
    """A sequence that makes a concept fire, newest items last; `strength` = value over p95."""

    strength: float
    items: tuple[EvidenceItem, ...]


@dataclass(frozen=True)
class QuantileBand:
    """Firings between two strengths: how many there were, and one of them."""

    low: float
    high: float
    firings: int
    example: Evidence | None = None


@dataclass(frozen=True)
class ItemScore:
    """An item and how much the concept raises its score, in score units per unit of latent value."""

    item_id: str
    title: str
    score: float


@dataclass(frozen=True)
class Neighbour:
    """Another concept and how near it is, -1 to 1: firing correlation (phi), or cosine of decoder rows."""

    concept_id: str
    label: str
    correlation: float


@dataclass(frozen=True)
class FacetLift:
    """A facet, its log-odds ratio against the popularity-matched null (natural log) and the lower 95 % bound."""

    facet: str
    log_odds: float
    low: float


@dataclass(frozen=True)
class LiteralRecord:
    """One literal of a rule: joined to what stands before it by `joined` ("", "and", "and not" or "or").

    `kind` is "recent" (recency-weighted share of `facet` among the newest ten items >= threshold), "usual" (its share
    among the newest forty), "last" (the newest item has `facet`), "before" (the item before it has), "popularity" (ln
    of the newest item's count >= threshold) or "length" (items in the history >= threshold).
    """

    joined: str
    kind: str
    facet: str
    threshold: float


@dataclass(frozen=True)
class RuleRecord:
    """A predicate any history can be tested on: literals, or "one of `item_ids` among the newest `window` items".

    `levels` are the strengths the rule predicts, one per pattern of truth of its m literals: entry sum_i 2^i truth_i of
    2^m; for an item set, entry 0 where it does not hold, 1 where it does.
    """

    literals: tuple[LiteralRecord, ...] = ()
    item_ids: tuple[str, ...] = ()
    window: int = 0
    levels: tuple[float, ...] = ()


def _causal_from_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {**value, "doses": doses_from_rows(value["doses"])}
    return value


class LabelSource(StrEnum):
    """Who wrote a label."""

    RULES = "rules"
    LLM = "llm"
    HUMAN = "human"


@dataclass(frozen=True)
class LlmRecord:
    """What a language model made of a latent, and how its description predicts strengths on verification users.

    `model` and `prompts` (versions) say who wrote it; `failure` says in a sentence why there are no words. Over the
    `cases` rated, at the mix of `recsae.concepts.llm.cases`: `correlation` is Pearson's between rated and true
    strength, `precision`, `recall` and `f1` those of "rated 5 or more of 10" against strength >= .5; `unrated` cases
    got no readable answer and are left out. `recsae_10_case` is RecSAE's own confidence, the share right of 5
    positives and 5 random negatives (a coin flip gets 8 right in 5.5 % of tries), `swapped_10_case` the same with
    another concept's description, a control; None where there were fewer cases or the budget ended.
    """

    label: str
    description: str
    model: str
    prompts: str
    cases: int
    correlation: Estimate = UNKNOWN
    precision: Estimate = UNKNOWN
    recall: Estimate = UNKNOWN
    f1: Estimate = UNKNOWN
    unrated: int = 0
    recsae_10_case: float | None = None
    swapped_10_case: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class ConceptRecord:
    """Everything known about a concept. Scores are on verification users; `confidence` is 0 where it was not judged.

    `scores` holds what the contract has no field for, by name: prevalence, lift, weak_share, always_true_f1,
    popularity_f1, swap_balanced_f1, unseen_balanced_f1 and others; a score that could not be computed is absent.
    `origin`: what became of it at the last refresh; `causal`: what turning it does; `llm`: what a language model says;
    each None where that was not looked at. `machine_label` is the label before people put another in its place, `note`
    what they wrote beside it; both empty in the dictionary itself (people's words are kept apart from it).
    """

    id: str
    latent: int
    label: str = ""
    output_label: str = ""
    kind: ConceptKind = ConceptKind.NONE
    status: ConceptStatus = ConceptStatus.UNVERIFIED
    density: float = 0.0
    p95: float = 1.0
    confidence: float = 0.0
    control_confidence: float = 0.0
    predicate: str = ""
    precision: Estimate = UNKNOWN
    recall: Estimate = UNKNOWN
    f1: Estimate = UNKNOWN
    balanced_f1: Estimate = UNKNOWN
    matched_f1: Estimate = UNKNOWN
    hard_f1: Estimate = UNKNOWN
    positives: int = 0
    users: int = 0
    effective_items: float = 0.0
    evidence: tuple[Evidence, ...] = ()
    bands: tuple[QuantileBand, ...] = ()
    promoted: tuple[ItemScore, ...] = ()
    suppressed: tuple[ItemScore, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    input_facets: tuple[FacetLift, ...] = ()
    output_facets: tuple[FacetLift, ...] = ()
    rule: RuleRecord = RuleRecord()
    label_source: LabelSource = LabelSource.RULES
    random_evidence: tuple[Evidence, ...] = ()
    near_misses: tuple[Evidence, ...] = ()
    decoder_neighbours: tuple[Neighbour, ...] = ()
    machine_label: str = ""
    note: str = ""
    origin: Origin | None = None
    causal: Annotated[CausalRecord | None, BeforeValidator(_causal_from_plain)] = None
    llm: LlmRecord | None = None
    scores: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain lists, dicts, strings and numbers; numbers keep six significant digits."""
        plain: dict[str, Any] = _plain(self)
        return plain


def is_verified(concept: ConceptRecord) -> bool:
    """Whether a facet rule passed: what "verified" counts. A verified item set is a class of its own."""
    return concept.status is ConceptStatus.VERIFIED and concept.kind is not ConceptKind.ITEM_SET


def concept_from_json(value: Mapping[str, Any]) -> ConceptRecord:
    """The record `as_json` was made from."""
    return _RECORDS.validate_python(value)


def rule_as_json(rule: RuleRecord) -> dict[str, Any]:
    """Plain lists, dicts, strings and numbers; thresholds exactly, since rules are tested again on other rows."""
    return {
        "literals": [vars(literal) for literal in rule.literals],
        "item_ids": list(rule.item_ids),
        "window": rule.window,
        "levels": list(rule.levels),
    }


def rule_from_json(value: Mapping[str, Any]) -> RuleRecord:
    """The rule `rule_as_json` was made from."""
    return _RULES.validate_python(value)


def _plain(value: Any) -> Any:
    if isinstance(value, RuleRecord):
        return rule_as_json(value)
    if isinstance(value, CausalRecord):
        plain = {name: _plain(each) for name, each in vars(value).items() if name != "doses"}
        return {**plain, "doses": doses_as_rows(value.doses)}
    if is_dataclass(value):
        return {name: _plain(each) for name, each in vars(value).items()}
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    # Nine more digits per number would double the file and say nothing.
    return float(f"{value:.6g}") if isinstance(value, float) else value


_RECORDS, _RULES = TypeAdapter(ConceptRecord), TypeAdapter(RuleRecord)
