"""RecSAE's own confidence of a description, by 5 positives and 5 random negatives: verified when 8 are right.

Kept beside our scores because published figures are in it. A coin flip passes it in `COIN_FLIP_PASSES` of tries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from recsae.concepts.llm.agreement import RATED_STRONG
from recsae.concepts.llm.cases import Case, CaseKind
from recsae.concepts.llm.verifying import Rating

TEN_CASES, PASS = 10, 8
COIN_FLIP_PASSES = sum(math.comb(TEN_CASES, right) for right in range(PASS, TEN_CASES + 1)) / 2**TEN_CASES


def ten_cases(cases: Sequence[Case]) -> list[int]:
    """Positions of the ten cases, or fewer when there are not as many."""
    of_kind = {kind: [at for at, case in enumerate(cases) if case.kind is kind] for kind in CaseKind}
    half = TEN_CASES // 2
    return of_kind[CaseKind.POSITIVE][:half] + of_kind[CaseKind.RANDOM][:half]


def ten_case_confidence(cases: Sequence[Case], ratings: Sequence[Rating]) -> float | None:
    """The share right of ten cases and their ratings; an unreadable answer is wrong.

    None when they are fewer than ten, or the budget ended before all were rated.
    """
    if len(ratings) < TEN_CASES or not all(rating.asked for rating in ratings):
        return None
    right = [_is_right(case, rating.strength) for case, rating in zip(cases, ratings, strict=True)]
    return sum(right) / TEN_CASES


def _is_right(case: Case, strength: float | None) -> bool:
    return strength is not None and (strength >= RATED_STRONG) == (case.kind is CaseKind.POSITIVE)
