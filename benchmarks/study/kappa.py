"""What two people's filled-in rating sheets say: Cohen's kappa, controls told apart, agreement with verification.

Not here: making the sheet (`rating`).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.rating import COLUMNS
from recsae.errors import InvalidRequestError

Answers = NDArray[np.int64]
_RESAMPLES = 2000


def read_answers(path: Path, rater: str) -> dict[str, int]:
    """The answers 0 or 1 of one column ("rater_1" or "rater_2") by question.

    InvalidRequestError names the first question without a usable answer, and how many there are.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if rater not in (reader.fieldnames or ()) or "question" not in (reader.fieldnames or ()):
            raise InvalidRequestError(f"{path.name} has no column {rater!r}; keep the columns {', '.join(COLUMNS)}")
        cells = {row["question"]: (row[rater] or "").strip() for row in reader}
    wrong = [question for question, cell in cells.items() if cell not in ("0", "1")]
    if wrong:
        first = f"{cells[wrong[0]]!r}" if cells[wrong[0]] else "nothing"
        raise InvalidRequestError(
            f"{path.name}: {len(wrong)} of {len(cells)} answers of {rater} are missing or neither 0 nor 1, the first "
            f"is question {wrong[0]} with {first}; answer every question before agreement is computed"
        )
    return {question: int(cell) for question, cell in cells.items()}


def agreement(one: dict[str, int], other: dict[str, int], key: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Kappa of two raters with its interval, and what they said of concepts, controls, verified and unverified ones.

    InvalidRequestError when sheets and key are not of the same questions.
    """
    if not set(one) == set(other) == set(key) or not key:
        raise InvalidRequestError(
            f"the sheets have {len(one)} and {len(other)} questions, the key {len(key)}, and they are not the same; "
            "use copies of one sheet and the key written with it"
        )
    questions = sorted(key, key=int)
    first, second = (np.array([answers[question] for question in questions]) for answers in (one, other))
    control = np.array([bool(key[question]["control"]) for question in questions])
    verified = np.array([bool(key[question]["verified"]) for question in questions])
    both = (first + second) / 2
    found = {
        "questions": len(questions),
        "kappa": _interval(cohens_kappa, first, second),
        "yes_share": {
            "verified": _share(both, ~control & verified),
            "unverified": _share(both, ~control & ~verified),
            "control": _share(both, control),
        },
    }
    found["told_from_control"] = _interval(cohens_kappa, (both >= 0.5).astype(int), (~control).astype(int))
    shown = ~control
    if shown.any():
        found["with_verification"] = _interval(
            cohens_kappa, (both[shown] >= 0.5).astype(int), verified[shown].astype(int)
        )
    return found


def cohens_kappa(one: Answers, other: Answers) -> float:
    """(observed - expected agreement) / (1 - expected) of 0/1 answers [n] (Cohen 1960).

    1 where both always say the same one thing: there is nothing left to agree on by more than chance.
    """
    observed = float((one == other).mean())
    yes, also = float(one.mean()), float(other.mean())
    expected = yes * also + (1 - yes) * (1 - also)
    return (observed - expected) / (1 - expected) if expected < 1 else 1.0


def _interval(measure: Callable[[Answers, Answers], float], one: Answers, other: Answers) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(one), (_RESAMPLES, len(one)))
    low, high = np.percentile([measure(one[rows], other[rows]) for rows in drawn], (2.5, 97.5))
    return {"value": round(measure(one, other), 4), "ci": [round(float(low), 4), round(float(high), 4)]}


def _share(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> float | None:
    return round(float(values[mask].mean()), 4) if mask.any() else None


def main() -> None:
    """Prints the agreement of two filled-in sheets as JSON."""
    parser = argparse.ArgumentParser(description="Agreement of two filled-in rating sheets.")
    parser.add_argument("first", type=Path, help="sheet with column rater_1 filled in")
    parser.add_argument("second", type=Path, help="sheet with column rater_2 filled in; may be the same file")
    parser.add_argument("key", type=Path)
    arguments = parser.parse_args()
    key = json.loads(arguments.key.read_text(encoding="utf-8"))
    try:
        found = agreement(read_answers(arguments.first, "rater_1"), read_answers(arguments.second, "rater_2"), key)
    except InvalidRequestError as error:
        parser.exit(2, f"{error}\n")
    print(json.dumps(found, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
