"""The rating sheet gives nothing away, and two filled-in sheets give kappa and agreement with verification."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.study.kappa import agreement, cohens_kappa, read_answers
from benchmarks.study.planted import activation_rows, planted_inputs
from benchmarks.study.rating import KEY, PAGE, SHEET, Question, draw_questions, write_sheet

from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.records import ConceptRecord, ConceptStatus, Evidence, EvidenceItem
from recsae.datasets.planted_activations import PlantedSpec, make_planted_activations
from recsae.errors import InvalidRequestError
from recsae.sae.codes import Codes

_WIDTH = 12


class NoSae:
    """Enough of an SAE to name a dictionary."""

    version, width, w_dec = "1" * 16, _WIDTH, np.eye(_WIDTH, dtype=np.float32)

    def encode(self, x: np.ndarray) -> Codes:
        raise NotImplementedError


@pytest.fixture(scope="module")
def drawn() -> tuple[DictionaryInputs, list[Question]]:
    world = make_planted_activations(PlantedSpec(d=8, families=(4, 2), n_users=60, n_items=80, mean_length=10))
    inputs = planted_inputs(world, activation_rows(world), NoSae())
    rng = np.random.default_rng(0)
    concepts = []
    for latent in range(_WIDTH):
        chosen = rng.permutation(80)[:5]
        evidence = tuple(
            Evidence(1.0, (EvidenceItem(inputs.item_ids[at], inputs.titles[at], 0.5, deciding=True),)) for at in chosen
        )
        status = ConceptStatus.VERIFIED if latent % 2 else ConceptStatus.UNVERIFIED
        concepts.append(
            ConceptRecord(f"c{latent}", latent, f"<b>Mostly {latent}</b>", status=status, evidence=evidence)
        )
    ones = np.ones(_WIDTH, np.float32)
    dictionary = Dictionary("", "0" * 16, "1" * 16, tuple(concepts), ConceptArrays(ones, ones, ones, ones, ones), {})
    return inputs, draw_questions(inputs, dictionary, 8)


def test_every_concept_comes_with_a_control_of_like_popularity_and_half_are_verified(
    drawn: tuple[DictionaryInputs, list[Question]],
) -> None:
    inputs, questions = drawn
    assert len(questions) == 16
    assert sum(one.verified and not one.control for one in questions) == 4
    index = {title: at for at, title in enumerate(inputs.titles, 1)}
    for concept in {one.concept_id for one in questions}:
        shown, control = sorted((one for one in questions if one.concept_id == concept), key=lambda one: one.control)
        assert not shown.control
        assert control.control
        assert shown.label == control.label
        assert not set(shown.titles) & set(control.titles)
        deciles = [sorted(inputs.deciles[index[title]] for title in one.titles) for one in (shown, control)]
        assert deciles[0] == deciles[1]


def test_the_sheet_and_the_page_say_neither_status_nor_control_and_escape_titles(
    drawn: tuple[DictionaryInputs, list[Question]], tmp_path: Path
) -> None:
    write_sheet(drawn[1], tmp_path)
    for name in (SHEET, PAGE):
        text = (tmp_path / name).read_text()
        for secret in ("verified", "control", *(one.concept_id + '"' for one in drawn[1])):
            assert secret not in text, name
    page = (tmp_path / PAGE).read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;Mostly" in page
    assert "http" not in page, "self-contained"
    key = json.loads((tmp_path / KEY).read_text())
    assert [key[str(at)]["control"] for at in range(1, 17)] == [one.control for one in drawn[1]]
    assert [one.control for one in drawn[1]] != sorted(one.control for one in drawn[1]), "shuffled"


def filled(folder: Path, questions: list[Question], rater: str, answers: list[str]) -> Path:
    write_sheet(questions, folder)
    with (folder / SHEET).open(newline="") as file:
        rows = list(csv.DictReader(file))
    path = folder / f"{rater}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, rater: answer} for row, answer in zip(rows, answers, strict=True))
    return path


def test_raters_who_see_the_truth_agree_with_each_other_and_with_verification(
    drawn: tuple[DictionaryInputs, list[Question]], tmp_path: Path
) -> None:
    truth = [str(int(one.verified and not one.control)) for one in drawn[1]]
    sheets = [filled(tmp_path, drawn[1], rater, truth) for rater in ("rater_1", "rater_2")]
    key = json.loads((tmp_path / KEY).read_text())
    answers = [read_answers(sheet, rater) for sheet, rater in zip(sheets, ("rater_1", "rater_2"), strict=True)]
    found = agreement(answers[0], answers[1], key)
    assert found["kappa"]["value"] == 1
    assert found["with_verification"]["value"] == 1
    assert found["yes_share"] == {"verified": 1.0, "unverified": 0.0, "control": 0.0}


def test_kappa_is_that_of_the_textbook_and_chance_is_zero() -> None:
    one = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    other = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert cohens_kappa(one, other) == pytest.approx(0.4)
    rng = np.random.default_rng(1)
    assert abs(cohens_kappa(rng.integers(0, 2, 20_000), rng.integers(0, 2, 20_000))) < 0.03
    assert cohens_kappa(np.ones(4, int), np.ones(4, int)) == 1


@pytest.mark.parametrize(("answer", "words"), [("", "with nothing"), ("yes", "with 'yes'")])
def test_a_half_filled_sheet_is_refused_with_its_first_gap(
    drawn: tuple[DictionaryInputs, list[Question]], tmp_path: Path, answer: str, words: str
) -> None:
    answers = ["1"] * 10 + [answer] * 6
    sheet = filled(tmp_path, drawn[1], "rater_2", answers)
    with pytest.raises(InvalidRequestError, match=rf"6 of 16 answers .* question 11 {words}"):
        read_answers(sheet, "rater_2")
    with pytest.raises(InvalidRequestError, match="no column 'rater_3'"):
        read_answers(sheet, "rater_3")


def test_sheets_of_other_questions_are_refused() -> None:
    key = {"1": {"control": False, "verified": True}}
    with pytest.raises(InvalidRequestError, match="not the same"):
        agreement({"1": 1}, {"2": 1}, key)


def test_too_few_concepts_make_no_sheet(drawn: tuple[DictionaryInputs, list[Question]]) -> None:
    ones = np.ones(0, np.float32)
    empty = Dictionary("", "", "", (), ConceptArrays(ones, ones, ones, ones, ones), {})
    with pytest.raises(InvalidRequestError, match="at least two"):
        draw_questions(drawn[0], empty, 8)
