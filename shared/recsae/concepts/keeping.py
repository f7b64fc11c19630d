"""Which concepts are kept over a refresh: matched, and the old rule, unchanged, still verifies on the new activations.

docs/method.md, section 8. The old rules are judged on the verification cases of the new SAE exactly as new labels are,
with the items that belonged to their facets then where that was learnt from histories.
Not here: matching (`identity`), the verdict itself (`verification`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.cases import Cases
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.features import RowFeatures
from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.learnt_facets import with_members
from recsae.concepts.origins import Fate
from recsae.concepts.records import ConceptRecord, ConceptStatus, RuleRecord
from recsae.concepts.rules import compile_item_sets, compile_rules
from recsae.concepts.thresholds import MIN_CASES
from recsae.concepts.verification import Labels, judge


def settle(
    dictionary: Dictionary,
    inputs: DictionaryInputs,
    cases: Cases,
    features: RowFeatures,
    weights: NDArray[np.float32],
) -> Dictionary:
    """The dictionary with `kept` filled in, in origins and lineage; as it is where there was none before.

    `cases`, `features` [n rows] and `weights` are those its own labels were judged on.
    """
    if dictionary.lineage is None or inputs.previous is None:
        return dictionary
    learnt = inputs.previous.dictionary.learnt
    features = replace(features, facets=with_members(features.facets, learnt, inputs.index_of))
    before = {concept.id: concept for concept in inputs.previous.dictionary.concepts}
    old = [before.get(concept.id) for concept in dictionary.concepts]
    verdicts = _judge_old_rules(old, dictionary, inputs, cases, features, weights)
    concepts: list[ConceptRecord] = []
    settled: dict[str, tuple[bool, bool]] = {}
    for concept, earlier, verdict in zip(dictionary.concepts, old, verdicts, strict=True):
        origin = concept.origin
        if origin is not None and earlier is not None and earlier.status is ConceptStatus.VERIFIED:
            settled[concept.id] = verdict
            kept, too_few = verdict
            origin = replace(origin, kept=kept, too_few_cases=too_few, unbroken=origin.unbroken if kept else 0)
        concepts.append(replace(concept, origin=origin))
    fates = tuple(_settled(fate, settled) for fate in dictionary.lineage.fates)
    return replace(dictionary, concepts=tuple(concepts), lineage=replace(dictionary.lineage, fates=fates))


def _settled(fate: Fate, settled: dict[str, tuple[bool, bool]]) -> Fate:
    if not fate.verified:
        return fate
    kept, too_few = settled.get(fate.id, (False, False))
    return replace(fate, kept=kept, too_few_cases=too_few)


def _judge_old_rules(
    old: list[ConceptRecord | None],
    dictionary: Dictionary,
    inputs: DictionaryInputs,
    cases: Cases,
    features: RowFeatures,
    weights: NDArray[np.float32],
) -> list[tuple[bool, bool]]:
    """Per latent: the rule of its old concept verifies; and it does not for want of cases. (False, False) for no rule.

    Item sets are judged on rows whose newest item is one that labels are built from, as new ones are.
    """
    rules = [
        _testable(concept.rule, features, inputs)
        if concept is not None and concept.status is ConceptStatus.VERIFIED
        else RuleRecord()
        for concept in old
    ]
    facets = [RuleRecord(literals=rule.literals) for rule in rules]
    sets = [RuleRecord(item_ids=rule.item_ids, window=rule.window) for rule in rules]
    has_set = np.array([bool(rule.item_ids) for rule in rules])
    verdict = judge(
        cases,
        Labels(
            compile_rules(facets).predictor(features),
            np.array([bool(rule.literals) for rule in rules]),
        ),
        Labels(compile_item_sets(sets, inputs.item_ids).predictor(features, inputs.n_items), has_set),
        compile_rules([RuleRecord()] * len(rules)).predictor(features),
        prefers_set=has_set,
        density=dictionary.arrays.density,
        weights=weights,
    )
    holds = verdict.facet | verdict.item_set
    seen = cases.restricted(np.flatnonzero(~cases.unseen))
    positives = np.where(has_set, seen.positives, cases.positives)
    negatives = np.where(has_set, seen.negatives, cases.negatives)
    least = np.minimum(np.minimum(positives, negatives), verdict.scores.hard_negatives)
    asked = has_set | np.array([bool(rule.literals) for rule in rules])
    return list(zip(holds.tolist(), (asked & ~holds & (least < MIN_CASES)).tolist(), strict=True))


def _testable(rule: RuleRecord, features: RowFeatures, inputs: DictionaryInputs) -> RuleRecord:
    """The rule, or an empty one when it asks for a facet the data no longer have; items that are gone match nothing."""
    facets = set(features.facets.names)
    if any(literal.facet and literal.facet not in facets for literal in rule.literals):
        return RuleRecord()
    item_ids = tuple(item_id for item_id in rule.item_ids if item_id in inputs.title_of)
    return replace(rule, item_ids=item_ids, window=rule.window if item_ids else 0)
