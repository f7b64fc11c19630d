"""Concepts described and verified by a language model, in a world whose concepts are known."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.llm.chat_server import ChatServer, Says, prompt_of
from tests.integration.llm.planted_world import GENRES, WIDTH, is_rating, make_inputs, reads_genres

from recsae.concepts.build import build_dictionary
from recsae.concepts.describers import Describer, RulesDescriber
from recsae.concepts.dictionary import ConceptStatus, Dictionary
from recsae.concepts.inputs import DictionaryInputs, read_part
from recsae.concepts.labels import UNDESCRIBED
from recsae.concepts.llm.asking import Asker
from recsae.concepts.llm.cases import CaseKind, Mix
from recsae.concepts.llm.describing import LlmDescriber
from recsae.concepts.llm.evidence import evidence_of
from recsae.concepts.llm.labelling import figures, label_concepts, largest_concepts, with_llm
from recsae.concepts.records import LabelSource
from recsae.concepts.splits import UserPart

Make = Callable[..., Asker]
SMALL = Mix(5, 5, 1, 1)


@pytest.fixture(scope="module")
def inputs() -> DictionaryInputs:
    return make_inputs()


@pytest.fixture(scope="module")
def dictionary(inputs: DictionaryInputs) -> Dictionary:
    return build_dictionary(inputs)


def test_a_model_that_understands_is_found_to_predict_and_with_others_words_it_is_not(
    server: ChatServer, make_asker: Make, dictionary: Dictionary, inputs: DictionaryInputs
) -> None:
    server.script = reads_genres
    run = label_concepts(dictionary, inputs, make_asker(), range(GENRES))
    for latent, record in run.records.items():
        assert (record.label, record.failure) == (f"Genre {latent}", "")
        assert (record.model, record.prompts) == ("tiny", "describe-1, verify-1")
        assert record.cases == 40
        assert record.correlation.low > 0.7
        assert record.f1.value > 0.8
        assert record.recsae_10_case is not None
        assert record.swapped_10_case is not None
        assert record.recsae_10_case >= 0.8 > record.swapped_10_case
    # Two users may have the same newest titles: that is asked once.
    assert server.requests == run.spend.requests == len(set(server.bodies))
    assert GENRES * (1 + 40 + 10) - 5 < server.requests <= GENRES * (1 + 40 + 10)


def test_cases_are_of_the_stated_mix_of_verification_users_and_each_of_another(
    server: ChatServer, make_asker: Make, dictionary: Dictionary, inputs: DictionaryInputs
) -> None:
    server.script = reads_genres
    run = label_concepts(dictionary, inputs, make_asker(), [0])
    cases = run.cases[0]
    kinds = [case.kind for case in cases]
    assert {kind: kinds.count(kind) for kind in CaseKind} == {"positive": 20, "hard": 6, "matched": 6, "random": 8}
    assert all((case.strength >= 0.5) == (case.kind is CaseKind.POSITIVE) for case in cases)
    assert all(case.strength == 0 for case in cases if case.kind is not CaseKind.POSITIVE)
    assert len({case.user for case in cases}) == len(cases)
    assert {inputs.parts[case.user] for case in cases} == {UserPart.VERIFICATION}
    part = read_part(inputs, UserPart.VERIFICATION)
    for case in cases:
        assert int(part.sample.user[case.row]) == case.user
        history = part.windows.items[part.windows.start[case.row] : part.windows.end[case.row]]
        assert case.titles == tuple(f"Item {item}" for item in history[-10:])


def test_the_verifier_is_asked_the_same_whatever_the_true_strengths_are(
    server: ChatServer, make_asker: Make, dictionary: Dictionary, inputs: DictionaryInputs, tmp_path: Path
) -> None:
    """Twice the strength of every positive: each request to the verifier is the same to the byte."""
    server.script = reads_genres
    sent = []
    for p95 in (dictionary.arrays.p95, dictionary.arrays.p95 / 2):
        server.bodies.clear()
        # Whatever fires is strong in both, so that the same histories are drawn.
        arrays = replace(dictionary.arrays, p95=(p95 * 1e-3).astype(np.float32))
        asker = make_asker()
        run = label_concepts(replace(dictionary, arrays=arrays), inputs, asker, range(GENRES), mix=SMALL)
        rated = sorted(body for body in server.bodies if is_rating(json.loads(body)))
        sent.append((rated, [case.strength for cases in run.cases.values() for case in cases if case.strength > 0]))
        for stored in (tmp_path / "answers").rglob("*.json"):
            stored.unlink()
    (first, strengths), (second, others) = sent
    assert np.allclose(others, 2 * np.array(strengths))
    assert len(first) > GENRES * (12 + 10) - 5
    assert first == second
    assert not any(re.search(r"strength \d", prompt_of(json.loads(body))) for body in first)


def test_the_describer_sees_construction_users_alone(dictionary: Dictionary, inputs: DictionaryInputs) -> None:
    part = read_part(inputs, UserPart.CONSTRUCTION)
    evidence = evidence_of(dictionary.by_latent(2), part, inputs.titles)
    assert [len(evidence.strongest), len(evidence.firing), len(evidence.silent)] == [5, 5, 4]
    assert {example.rating for example in evidence.strongest} == {10}
    assert all(1 <= example.rating <= 10 for example in evidence.firing)
    assert {example.rating for example in evidence.silent} == {0}
    owned = {
        tuple(f"Item {item}" for item in part.windows.items[start:end][-10:])
        for start, end in zip(part.windows.start.tolist(), part.windows.end.tolist(), strict=True)
    }
    assert {example.titles for example in (*evidence.firing, *evidence.silent)} <= owned


def test_ratings_are_tenths_of_the_firings(dictionary: Dictionary, inputs: DictionaryInputs) -> None:
    """Equal-frequency bins: over all firings every rating from 1 to 10 comes about equally often."""
    part = read_part(inputs, UserPart.CONSTRUCTION)
    drawn = [
        example.rating
        for seed in range(60)
        for latent in range(GENRES)
        for example in evidence_of(dictionary.by_latent(latent), part, inputs.titles, seed).firing
    ]
    shares = np.bincount(drawn, minlength=11)[1:] / len(drawn)
    assert shares.min() > 0.05
    assert shares.max() < 0.16


def test_an_answer_nobody_can_read_fails_its_concept_and_no_other(
    server: ChatServer, make_asker: Make, dictionary: Dictionary, inputs: DictionaryInputs
) -> None:
    def rambles(body: dict[str, Any]) -> Says:
        said = reads_genres(body)
        if is_rating(body):
            return Says("hmm") if hash_of(body) % 4 == 0 else said
        return Says("Genre? I would say it is about films.") if "Genre 3" in said.content else said

    server.script = rambles
    run = label_concepts(dictionary, inputs, make_asker(), range(GENRES), mix=SMALL)
    failed = run.records[3]
    assert (failed.label, failed.cases) == ("", 0)
    assert "no JSON object with a label and a description: 'Genre? I would say it is about films.'" in failed.failure
    others = [record for latent, record in run.records.items() if latent != 3]
    assert all(record.cases + record.unrated == 12 for record in others)
    assert 0 < sum(record.unrated for record in others) < 30
    assert figures(run)["failed"] == 1


def hash_of(body: dict[str, Any]) -> int:
    return sum(prompt_of(body).encode())


def test_a_budget_that_ends_has_finished_the_concepts_before(
    server: ChatServer, make_asker: Make, dictionary: Dictionary, inputs: DictionaryInputs
) -> None:
    server.script = reads_genres
    asker = make_asker({"max_tokens": 110 * 64, "concurrency": 1})
    run = label_concepts(dictionary, inputs, asker, range(GENRES), mix=SMALL)
    assert [record.cases for record in run.records.values()] == [12, 12, 0, 0]
    assert [record.label for record in run.records.values()] == [f"Genre {latent}" for latent in range(GENRES)]
    assert run.spend.usage.tokens <= 110 * 64
    assert "RECSAE_WORKER_LLM_MAX_TOKENS" in run.spend.stopped
    again = label_concepts(dictionary, inputs, make_asker(), range(GENRES), mix=SMALL)
    assert again.spend.cached == run.spend.requests
    assert server.requests == run.spend.requests + again.spend.requests == len(set(server.bodies))
    assert [record.cases for record in again.records.values()] == [12] * GENRES


def test_a_budget_that_ends_at_once_leaves_no_record(
    make_asker: Make, dictionary: Dictionary, inputs: DictionaryInputs
) -> None:
    run = label_concepts(dictionary, inputs, make_asker({"max_tokens": 10}), range(GENRES))
    assert (run.records, run.spend.requests) == ({}, 0)
    assert with_llm(dictionary, run) == dictionary


def test_the_models_label_stands_only_where_there_is_no_other(
    server: ChatServer, make_asker: Make, dictionary: Dictionary, inputs: DictionaryInputs, tmp_path: Path
) -> None:
    server.script = reads_genres
    concepts = list(dictionary.concepts)
    concepts[1] = replace(concepts[1], label=UNDESCRIBED, predicate="")
    concepts[2] = replace(concepts[2], label="", label_source=LabelSource.HUMAN)
    run = label_concepts(dictionary, inputs, make_asker(), range(3), mix=SMALL)
    named = with_llm(replace(dictionary, concepts=tuple(concepts)), run)
    assert named.by_latent(0).label == dictionary.by_latent(0).label
    assert named.by_latent(0).label_source is LabelSource.RULES
    assert (named.by_latent(1).label, named.by_latent(1).label_source) == ("Genre 1", LabelSource.LLM)
    assert (named.by_latent(2).label, named.by_latent(2).label_source) == ("", LabelSource.HUMAN)
    assert named.by_latent(3).llm is None
    named.save(tmp_path / "named")
    loaded = Dictionary.load(tmp_path / "named", "c" * 16).by_latent(2).llm
    assert loaded is not None
    assert loaded.label == "Genre 2"
    assert loaded.correlation.value == pytest.approx(run.records[2].correlation.value, rel=1e-5)


def test_the_largest_concepts_are_asked_about_and_no_dead_one(dictionary: Dictionary) -> None:
    chosen = largest_concepts(dictionary, WIDTH)
    mass = dictionary.arrays.density * dictionary.arrays.mean
    assert dictionary.by_latent(WIDTH - 1).status is ConceptStatus.DEAD
    assert sorted(chosen) == list(range(GENRES))
    assert [mass[latent] for latent in chosen] == sorted(mass[:GENRES], reverse=True)
    assert largest_concepts(dictionary, 2) == chosen[:2]
    arrays = replace(dictionary.arrays, density=np.where(np.arange(WIDTH) == chosen[0], 0, dictionary.arrays.density))
    assert largest_concepts(replace(dictionary, arrays=arrays), WIDTH) == chosen[1:]


def test_rules_and_model_describe_behind_one_interface(
    server: ChatServer, make_asker: Make, dictionary: Dictionary, inputs: DictionaryInputs
) -> None:
    server.script = reads_genres
    part = read_part(inputs, UserPart.CONSTRUCTION)
    evidence = [evidence_of(dictionary.by_latent(latent), part, inputs.titles) for latent in (3, 2)]
    describers: list[Describer] = [RulesDescriber(dictionary.concepts), LlmDescriber(make_asker())]
    assert [(one.name, one.version) for one in describers] == [("rules", "1"), ("tiny", "describe-1")]
    by_rules, by_model = ([words.description for words in one.describe(evidence)] for one in describers)
    assert by_rules == [dictionary.by_latent(latent).predicate for latent in (3, 2)]
    assert by_model == ["Histories that end in genre 3.", "Histories that end in genre 2."]
    assert RulesDescriber([replace(c, predicate="") for c in dictionary.concepts]).describe(evidence)[0].failure
