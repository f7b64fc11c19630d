"""Second stage of a dictionary: every label is judged on verification users, and the records are completed.

Verification users are read here and nowhere else. Not here: the thresholds (`verification`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.assembling import kind_of
from recsae.concepts.cases import Cases, group_users, resampling_weights
from recsae.concepts.controls import always_true_f1
from recsae.concepts.described import RankedRows, described_ndcg
from recsae.concepts.description import Description
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.firings import CoFiring
from recsae.concepts.inputs import DictionaryInputs, PartRows, Progress, read_part
from recsae.concepts.intruder_scores import IntruderScores, intruder_scores
from recsae.concepts.keeping import settle
from recsae.concepts.labels import predicate_of
from recsae.concepts.learnt_facets import members_of
from recsae.concepts.records import ConceptKind, ConceptRecord, ConceptStatus
from recsae.concepts.rules import compile_item_sets, compile_rules
from recsae.concepts.splits import UserPart
from recsae.concepts.summary import summarise
from recsae.concepts.verification import MIN_UNSEEN_CASES, Labels, Verdict, judge
from recsae.errors import FailedPreconditionError


def verify(
    inputs: DictionaryInputs,
    description: Description,
    progress: Progress = lambda _message, _share: None,
    ranked: RankedRows | None = None,
) -> Dictionary:
    """The finished dictionary (its version is given when it is published); described NDCG needs `ranked`.

    FailedPreconditionError when the description is of another SAE or model version.
    """
    draft = description.draft
    if (draft.sae_version, draft.model_version) != (inputs.sae.version, inputs.model_version):
        raise FailedPreconditionError(
            f"the description is of SAE {draft.sae_version} on model {draft.model_version}, not of "
            f"{inputs.sae.version} on {inputs.model_version}; describe again"
        )
    progress("reading verification users", 0.0)
    part = read_part(inputs, UserPart.VERIFICATION)
    cases = _cases(inputs, description, part)
    facets = compile_rules(description.facet_rules).predictor(part.features)
    sets = compile_item_sets(description.item_sets, inputs.item_ids).predictor(part.features, inputs.n_items)
    progress("judging labels", 0.3)
    weights = resampling_weights(cases.groups, seed=inputs.seed)
    verdict = judge(
        cases,
        Labels(facets, np.array([bool(rule.literals) for rule in description.facet_rules])),
        Labels(sets, np.array([bool(rule.item_ids) for rule in description.item_sets])),
        compile_rules(description.popularity_rules).predictor(part.features),
        prefers_set=description.prefers_set,
        density=draft.arrays.density,
        weights=weights,
    )
    progress("writing records", 0.9)
    live = (description.probe_counts + inputs.sums.verification_fired) > 0
    records = _records(inputs, description, cases, verdict, live)
    progress("looking for intruders among items", 0.92)
    intruders = _intruders(inputs, part, draft.arrays.p95, records)
    records = _with_scores(records, intruders.as_scores())
    extra: dict[str, Any] = {"intruder": intruders.summary(verdict.facet)}
    if ranked is not None:
        progress("ranking by what the labels say", 0.95)
        told = description.told(verdict.uses_set)
        if (described := described_ndcg(told, ranked, inputs.item_ids, inputs.seed)) is not None:
            extra["described_ndcg"] = described.as_json()
    summary = extra | summarise(records, draft.arrays, description.effect, verdict.swapped_passes, inputs.control)
    learnt = members_of((record.rule for record in records), inputs.facets, inputs.item_ids)
    finished = replace(draft, concepts=records, summary=summary, learnt=learnt)
    progress("judging the rules of the dictionary before", 0.97)
    return settle(finished, inputs, cases, part.features, weights)


def _intruders(
    inputs: DictionaryInputs, part: PartRows, p95: NDArray[np.float32], records: Sequence[ConceptRecord]
) -> IntruderScores:
    lag = np.array([int(record.scores.get("typical_lag", 0)) for record in records], np.int64)
    return intruder_scores(inputs, part, p95, lag, records)


def _with_scores(
    records: Sequence[ConceptRecord], scores: Mapping[str, NDArray[np.float64]]
) -> tuple[ConceptRecord, ...]:
    """The records with further scores by name; NaN = could not be computed."""
    return tuple(
        replace(
            record,
            scores={
                **record.scores,
                **{name: float(values[at]) for name, values in scores.items() if np.isfinite(values[at])},
            },
        )
        for at, record in enumerate(records)
    )


def _cases(inputs: DictionaryInputs, description: Description, part: PartRows) -> Cases:
    p95 = description.draft.arrays.p95
    group = group_users(part.sample.user, inputs.seed)
    return Cases(
        strong=part.firings.strong(p95),
        weak=part.firings.weak(p95),
        user=part.sample.user.astype(np.int64),
        group=group,
        unseen=inputs.unseen[part.features.newest[:, 0]],
        stratum=description.strata.of(part.features),
        n_strata=description.strata.count,
        groups=int(group.max()) + 1,
        neighbours=description.neighbours,
    )


def _records(
    inputs: DictionaryInputs, description: Description, cases: Cases, verdict: Verdict, live: NDArray[np.bool_]
) -> tuple[ConceptRecord, ...]:
    rules = [
        of_set if uses_set else facet
        for facet, of_set, uses_set in zip(
            description.facet_rules, description.item_sets, verdict.uses_set.tolist(), strict=True
        )
    ]
    labels = [inputs.label(rule) for rule in rules]
    ids = [concept.id for concept in description.draft.concepts]
    near = CoFiring(description.neighbours, description.correlations)
    label_of_id = dict(zip(ids, labels, strict=True))
    users, scores = cases.users(), _extra_scores(cases, verdict)
    found = verdict.scores
    records = []
    for latent, draft in enumerate(description.draft.concepts):
        status = _status(verdict, latent, bool(live[latent]))
        if status is ConceptStatus.DEAD:
            records.append(replace(draft, status=status, label="", kind=ConceptKind.NONE, predicate=""))
            continue
        records.append(
            replace(
                draft,
                label=labels[latent],
                predicate=predicate_of(rules[latent]),
                rule=rules[latent],
                kind=ConceptKind.SEMANTIC if verdict.semantic[latent] else kind_of(rules[latent]),
                status=status,
                confidence=float(found.f1.low[latent]) if verdict.enough[latent] else 0.0,
                control_confidence=float(verdict.control.low[latent]) if verdict.enough[latent] else 0.0,
                precision=found.precision.of(latent),
                recall=found.recall.of(latent),
                f1=found.f1.of(latent),
                balanced_f1=found.balanced_f1.of(latent),
                matched_f1=found.matched_f1.of(latent),
                hard_f1=found.hard_f1.of(latent),
                positives=int(cases.positives[latent]),
                users=int(users[latent]),
                neighbours=near.of(latent, ids, labels),
                decoder_neighbours=tuple(
                    replace(other, label=label_of_id[other.concept_id]) for other in draft.decoder_neighbours
                ),
                scores=dict(draft.scores)
                | {name: float(values[latent]) for name, values in scores.items() if np.isfinite(values[latent])},
            )
        )
    return tuple(records)


def _status(verdict: Verdict, latent: int, live: bool) -> ConceptStatus:
    if not live:
        return ConceptStatus.DEAD
    if verdict.facet[latent] or verdict.item_set[latent]:
        return ConceptStatus.VERIFIED
    return ConceptStatus.UNVERIFIED if verdict.enough[latent] else ConceptStatus.TOO_RARE


def _extra_scores(cases: Cases, verdict: Verdict) -> dict[str, NDArray[np.float64]]:
    """Scores the contract has no field for, float64 [w]; NaN = could not be computed."""
    found, positives = verdict.scores, cases.positives
    counted = np.maximum(positives + cases.negatives, 1)
    prevalence = positives / counted
    weak = np.diff(cases.weak.indptr).astype(np.float64)
    fresh = found.unseen_positives >= MIN_UNSEEN_CASES
    fired = np.maximum(positives + weak, 1)
    return {
        "prevalence": prevalence,
        "lift": np.divide(found.precision.value, prevalence, out=np.full(cases.width, np.nan), where=prevalence > 0),
        "weak_share": weak / fired,
        "weak_recall": np.divide(found.weak_predicted, weak, out=np.full(cases.width, np.nan), where=weak > 0),
        "balanced_precision": found.balanced_precision.value,
        "balanced_precision_low": found.balanced_precision.low,
        "always_true_f1": always_true_f1(positives, cases.negatives),
        "popularity_f1": verdict.popularity.value,
        "popularity_f1_low": verdict.popularity.low,
        "swap_f1": verdict.control.value,
        "swap_balanced_f1": verdict.swap_balanced_f1,
        "unseen_balanced_f1": np.where(fresh, found.unseen_f1.value, np.nan),
        "unseen_balanced_f1_low": np.where(fresh, found.unseen_f1.low, np.nan),
        "hard_negatives": found.hard_negatives.astype(np.float64),
        "negatives": cases.negatives.astype(np.float64),
    }
