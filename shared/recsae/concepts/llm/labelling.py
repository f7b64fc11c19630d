"""Describes and verifies concepts of a dictionary by a language model: evidence -> words -> ratings -> records.

All descriptions come first, then the ratings concept by concept, so that a budget that ends has finished the concepts
before it. Not here: where the inputs come from (the pipeline, a benchmark).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recsae.concepts.describers import Words
from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.features import cut_strata
from recsae.concepts.inputs import DictionaryInputs, read_part
from recsae.concepts.labels import UNDESCRIBED
from recsae.concepts.llm.agreement import agreement
from recsae.concepts.llm.asking import Asker
from recsae.concepts.llm.cases import DEFAULT_MIX, Case, CaseKind, CaseSource, Mix
from recsae.concepts.llm.describing import LlmDescriber
from recsae.concepts.llm.evidence import evidence_of
from recsae.concepts.llm.prompts import DESCRIBE, VERIFY
from recsae.concepts.llm.ten_cases import TEN_CASES, ten_case_confidence, ten_cases
from recsae.concepts.llm.usage import Spend
from recsae.concepts.llm.verifying import Question, Rating, rate
from recsae.concepts.records import ConceptRecord, ConceptStatus, LabelSource, LlmRecord
from recsae.concepts.splits import UserPart

PROMPTS = f"{DESCRIBE}, {VERIFY}"
# With fewer positives a score says nothing; such a concept is described and not verified.
_MIN_POSITIVES = TEN_CASES // 2

# Called with what is being done, the share done (0 to 1) and what was used; may raise to end the work.
LlmProgress = Callable[[str, float, Spend], None]


@dataclass(frozen=True)
class LlmRun:
    """Records by latent (fewer than asked for where the budget ended), what they cost, and the cases rated."""

    records: Mapping[int, LlmRecord]
    spend: Spend
    cases: Mapping[int, tuple[Case, ...]]


def largest_concepts(dictionary: Dictionary, count: int) -> list[int]:
    """Latents of the `count` concepts of most activation mass (density times mean value), largest first.

    Those without any on construction users, dead or not, have no evidence and are left out.
    """
    arrays: ConceptArrays = dictionary.arrays
    mass = arrays.density * arrays.mean
    alive = [
        concept.latent
        for concept in dictionary.concepts
        if concept.status is not ConceptStatus.DEAD and mass[concept.latent] > 0
    ]
    return sorted(alive, key=lambda latent: (-float(mass[latent]), latent))[:count]


def label_concepts(
    dictionary: Dictionary,
    inputs: DictionaryInputs,
    asker: Asker,
    latents: Sequence[int],
    *,
    mix: Mix = DEFAULT_MIX,
    progress: LlmProgress = lambda _message, _share, _spend: None,
) -> LlmRun:
    """Describes `latents` from construction users and verifies each description on verification users.

    Latents are few and each costs dozens of calls, so what is done for each in a loop here does not matter.
    """
    progress("choosing evidence", 0.0, asker.spend)
    construction = read_part(inputs, UserPart.CONSTRUCTION)
    concepts = [dictionary.by_latent(latent) for latent in latents]
    evidence = [evidence_of(concept, construction, inputs.titles, inputs.seed) for concept in concepts]
    share = 1 / (1 + mix.positives + mix.random + mix.matched + mix.hard)
    describer = LlmDescriber(
        asker,
        lambda done, spend: progress(
            f"{done:,} of {len(concepts):,} concepts described", share * done / max(1, len(concepts)), spend
        ),
    )
    words = describer.describe(evidence)
    strata = cut_strata(construction.features)
    source = CaseSource.of(read_part(inputs, UserPart.VERIFICATION), dictionary.arrays.p95, strata, inputs.titles)
    near = [[dictionary.by_id(one.concept_id).latent for one in concept.neighbours] for concept in concepts]
    cases = {
        concept.latent: source.draw(concept.latent, others, mix, inputs.seed)
        for concept, others, said in zip(concepts, near, words, strict=True)
        if not said.failure
    }
    ratings = _rate(
        asker,
        _plan(concepts, words, cases),
        lambda done, of, spend: progress(f"{done:,} of {of:,} histories rated", share + (1 - share) * done / of, spend),
    )
    records = {
        concept.latent: _record(asker, said, cases.get(concept.latent, ()), *ratings.get(concept.latent, ((), ())))
        for concept, said in zip(concepts, words, strict=True)
    }
    # What the budget did not reach is not a failure of the concept.
    ended = asker.spend.stopped
    kept = {latent: record for latent, record in records.items() if not ended or record.failure != ended}
    return LlmRun(kept, asker.spend, cases)


def with_llm(dictionary: Dictionary, run: LlmRun) -> Dictionary:
    """The dictionary with the run's records; the model's label stands only where no rule and no person gave one."""
    concepts = tuple(
        _labelled(concept, run.records[concept.latent]) if concept.latent in run.records else concept
        for concept in dictionary.concepts
    )
    return replace(dictionary, concepts=concepts)


@dataclass(frozen=True)
class _Task:
    """What is rated for a latent: all cases by its own words, and ten by another's (which may be missing)."""

    latent: int
    own: tuple[Question, ...]
    swapped: tuple[Question, ...]


def _plan(
    concepts: Sequence[ConceptRecord], words: Sequence[Words], cases: Mapping[int, tuple[Case, ...]]
) -> list[_Task]:
    described = [
        (concept.latent, said.description) for concept, said in zip(concepts, words, strict=True) if not said.failure
    ]
    tasks = []
    for place, (latent, description) in enumerate(described):
        mine = cases[latent]
        if sum(case.kind is CaseKind.POSITIVE for case in mine) < _MIN_POSITIVES:
            continue
        other = described[(place + 1) % len(described)][1] if len(described) > 1 else ""
        swapped = [Question(other, mine[at].titles) for at in ten_cases(mine)] if other else []
        tasks.append(_Task(latent, tuple(Question(description, case.titles) for case in mine), tuple(swapped)))
    return tasks


def _rate(
    asker: Asker, tasks: Sequence[_Task], progress: Callable[[int, int, Spend], None]
) -> dict[int, tuple[list[Rating], list[Rating]]]:
    """Ratings of each latent's own and swapped questions."""
    questions = [question for task in tasks for question in (*task.own, *task.swapped)]
    ratings = iter(rate(asker, questions, lambda done, spend: progress(done, max(1, len(questions)), spend)))
    return {task.latent: ([next(ratings) for _ in task.own], [next(ratings) for _ in task.swapped]) for task in tasks}


def _record(
    asker: Asker, words: Words, cases: Sequence[Case], own: Sequence[Rating], swapped: Sequence[Rating]
) -> LlmRecord:
    record = LlmRecord(words.label, words.description, asker.options.model, PROMPTS, 0, failure=words.failure)
    if not own or not all(one.asked for one in own):
        return record
    rated = [(one.strength, case) for one, case in zip(own, cases, strict=True) if one.strength is not None]
    found = agreement(
        [strength for strength, _ in rated], [case.strength for _, case in rated], [case.user for _, case in rated]
    )
    ten = ten_cases(cases)
    ten_of = [cases[at] for at in ten]
    return replace(
        record,
        cases=len(rated),
        unrated=len(cases) - len(rated),
        correlation=found.correlation,
        precision=found.precision,
        recall=found.recall,
        f1=found.f1,
        recsae_10_case=ten_case_confidence(ten_of, [own[at] for at in ten]),
        swapped_10_case=ten_case_confidence(ten_of, swapped),
    )


def _labelled(concept: ConceptRecord, record: LlmRecord) -> ConceptRecord:
    unnamed = concept.label in ("", UNDESCRIBED) and concept.label_source is not LabelSource.HUMAN
    if not unnamed or not record.label:
        return replace(concept, llm=record)
    return replace(concept, llm=record, label=record.label, label_source=LabelSource.LLM)


def figures(run: LlmRun) -> dict[str, float]:
    """What a run record carries of a run: how many were described and rated, mean agreement, and what it used."""
    records = list(run.records.values())
    rated = [record for record in records if record.cases]
    found = {
        "described": float(sum(bool(record.label) for record in records)),
        "failed": float(sum(bool(record.failure) for record in records)),
        "rated": float(len(rated)),
        "requests": float(run.spend.requests),
        "cached": float(run.spend.cached),
        "tokens": float(run.spend.usage.tokens),
        "cost": run.spend.cost,
    }
    if rated:
        found |= {
            "correlation": float(np.mean([record.correlation.value for record in rated])),
            "f1": float(np.mean([record.f1.value for record in rated])),
        }
    return found
