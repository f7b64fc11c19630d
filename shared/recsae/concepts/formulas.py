"""Readable formulas over up to three literals: chains joined by and, and not, or, in any order of the literals.

A formula is the set of truth patterns on which it holds. Pattern p of m literals has bit i set where literal i is true.
Not here: which literals (`describing`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.rules import MAX_LITERALS_PER_RULE, Joined, join

PATTERNS = 1 << MAX_LITERALS_PER_RULE


@dataclass(frozen=True)
class Formulas:
    """All distinct formulas that use all of m literals.

    `order` int8 [f, 3] positions of the literals as they are said (-1 behind the end), `joined` int8 [f, 3] how,
    `holds` bool [f, 2^m] on which patterns, `alternatives` bool [f] whether it says "or".
    """

    order: NDArray[np.int8]
    joined: NDArray[np.int8]
    holds: NDArray[np.bool_]
    alternatives: NDArray[np.bool_]


@cache
def formulas_of(literals: int) -> Formulas:
    """Formulas of 1, 2 or 3 literals: 1, 4 and 23 of them; of equal ones the first stays."""
    patterns = np.arange(1 << literals)
    truth = [((patterns >> literal) & 1).astype(np.uint8) for literal in range(literals)]
    found: dict[bytes, tuple[list[int], list[int]]] = {}
    for order in itertools.permutations(range(literals)):
        for joins in itertools.product(Joined, repeat=literals - 1):
            holds = truth[order[0]]
            for literal, how in zip(order[1:], joins, strict=True):
                holds = join(holds, truth[literal], how)
            rest = MAX_LITERALS_PER_RULE - literals
            found.setdefault(holds.tobytes(), ([*order, *[-1] * rest], [0, *map(int, joins), *[0] * rest]))
    joined = np.array([joins for _, joins in found.values()], np.int8)
    return Formulas(
        np.array([order for order, _ in found.values()], np.int8),
        joined,
        np.stack([np.frombuffer(key, np.uint8).astype(bool) for key in found]),
        (joined == Joined.OR).any(axis=1),
    )
