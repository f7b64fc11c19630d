"""A blinded rating sheet for people: whether the items of some evidence have what the label says.

Each question shows the deciding items of one concept's evidence with its label, or, as a control, items of the same
popularity that have nothing to do with it under the same kind of label. Which is which, and what verification said,
stands in a key of its own, so that the sheet gives nothing away. `sheet.csv` is filled in by each rater in a copy;
`sheet.html` shows the same to read. Not here: agreement of filled-in sheets (`kappa`).
"""

from __future__ import annotations

import csv
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.material import Material
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.records import ConceptRecord, is_verified
from recsae.errors import InvalidRequestError

COLUMNS = ("question", "label", "items", "rater_1", "rater_2")
SHEET, PAGE, KEY = "sheet.csv", "sheet.html", "key.json"
_BETWEEN = " | "
_LEAST_ITEMS = 3
_HOW = (
    "For every question: do the items have what the label says, most of them and more than chance items would? "
    "Write 1 for yes, 0 for no, into your own column of the sheet. Work alone, leave nothing out, and do not look "
    "items up in the data."
)


@dataclass(frozen=True)
class Question:
    """One question: what is shown, and (for the key only) what it is."""

    label: str
    titles: tuple[str, ...]
    concept_id: str
    control: bool
    verified: bool


def rating_study(material: Material, out: Path, concepts: int = 40, seed: int = 0) -> dict[str, Any]:
    """Writes a sheet of `concepts` questions and as many controls into `out`; says what it wrote."""
    questions = draw_questions(material.inputs, material.dictionary, concepts, seed)
    write_sheet(questions, out)
    return {
        "questions": len(questions),
        "controls": sum(one.control for one in questions),
        "verified": sum(one.verified and not one.control for one in questions),
        "files": [SHEET, PAGE, KEY],
    }


def draw_questions(inputs: DictionaryInputs, dictionary: Dictionary, concepts: int, seed: int = 0) -> list[Question]:
    """Half of the concepts verified, half not (as far as there are), and a control for each, in random order.

    A control keeps the label and takes, for each item shown, another one of the same popularity decile.
    InvalidRequestError when fewer than two concepts have a label and evidence of three items.
    """
    rng = np.random.default_rng(seed)
    eligible = [one for one in dictionary.concepts if one.label and len(_titles(one)) >= _LEAST_ITEMS]
    if len(eligible) < 2 or concepts < 2:
        raise InvalidRequestError(
            f"{len(eligible)} concepts have a label and evidence of {_LEAST_ITEMS} items, {concepts} were asked for; "
            "a sheet needs at least two"
        )
    verified = [one for one in eligible if is_verified(one)]
    others = [one for one in eligible if not is_verified(one)]
    wanted = min(concepts, len(eligible))
    half = min(len(verified), max(wanted - len(others), wanted // 2))
    chosen = [*_some(rng, verified, half), *_some(rng, others, wanted - half)]
    questions = []
    for one in chosen:
        passed = is_verified(one)
        questions.append(Question(one.label, _titles(one), one.id, control=False, verified=passed))
        questions.append(Question(one.label, _others(rng, inputs, one), one.id, control=True, verified=passed))
    return _some(rng, questions, len(questions))


def write_sheet(questions: Sequence[Question], out: Path) -> None:
    """Writes the sheet, the page to read and, apart, the key."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / SHEET).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number, one in enumerate(questions, 1):
            writer.writerow([number, one.label, _BETWEEN.join(one.titles), "", ""])
    (out / PAGE).write_text(page(questions), encoding="utf-8")
    key = {
        str(number): {"concept_id": one.concept_id, "control": one.control, "verified": one.verified}
        for number, one in enumerate(questions, 1)
    }
    (out / KEY).write_text(json.dumps(key, indent=1), encoding="utf-8")


def page(questions: Sequence[Question]) -> str:
    """The questions as one self-contained page; titles are text, whatever is in them."""
    rows = "\n".join(
        f"<section><h2>{number}. {html.escape(one.label)}</h2><ul>"
        + "".join(f"<li>{html.escape(title)}</li>" for title in one.titles)
        + "</ul></section>"
        for number, one in enumerate(questions, 1)
    )
    style = "body{font:16px sans-serif;max-width:46em;margin:2em auto;padding:0 1em}h2{font-size:1.1em}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Rating sheet</title><style>{style}</style>'
        f"</head><body><h1>Rating sheet</h1><p>{_HOW}</p>\n{rows}\n</body></html>\n"
    )


def _titles(concept: ConceptRecord) -> tuple[str, ...]:
    """Deciding items of the evidence; the newest where none was found."""
    found = []
    for evidence in concept.evidence:
        deciding = [item for item in evidence.items if item.deciding] or list(evidence.items[-1:])
        found += [item.title for item in deciding[:1]]
    return tuple(dict.fromkeys(found))


def _others(rng: np.random.Generator, inputs: DictionaryInputs, concept: ConceptRecord) -> tuple[str, ...]:
    index = {title: at for at, title in enumerate(inputs.titles, 1)}
    shown = {index[title] for title in _titles(concept)}
    drawn: list[int] = []
    for item in sorted(shown):
        alike = np.flatnonzero(inputs.deciles == inputs.deciles[item])
        free = alike[~np.isin(alike, [*shown, *drawn])]
        if len(free):
            drawn.append(int(rng.choice(free)))
    return tuple(inputs.titles[item - 1] for item in drawn)


def _some(rng: np.random.Generator, among: Sequence[Any], count: int) -> list[Any]:
    return [among[at] for at in rng.permutation(len(among))[:count].tolist()]
