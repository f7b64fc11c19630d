"""The histories a description is rated on: verification users, one history each, at a mix that is stated.

Half are positives (strength >= .5), so that a verifier that always says yes reaches precision .5 and F1 .667. The other
half are silent: picked at random, matched to the positives in popularity of the newest item and history length, and
hard (a near neighbour fires at strength >= .5). Not here: ratings (`verifying`) and scores (`agreement`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.features import Strata
from recsae.concepts.firings import STRONG
from recsae.concepts.inputs import PartRows
from recsae.concepts.llm.prompts import MAX_TITLES

Ints = NDArray[np.int64]


class CaseKind(StrEnum):
    """Why a history is among the cases."""

    POSITIVE = "positive"
    RANDOM = "random"
    MATCHED = "matched"
    HARD = "hard"


@dataclass(frozen=True)
class Mix:
    """How many cases of each kind a description is rated on."""

    positives: int = 20
    random: int = 8
    matched: int = 6
    hard: int = 6


DEFAULT_MIX = Mix()


@dataclass(frozen=True)
class Case:
    """A history to rate, oldest title first, with what the rater must not know: true strength, row, user and kind.

    `row` is that of the verification rows it was drawn from.
    """

    titles: tuple[str, ...]
    strength: float
    row: int
    user: int
    kind: CaseKind


@dataclass(frozen=True)
class CaseSource:
    """Rows cases are drawn from: those of verification users, with p95 float32 [w] and `stratum` int32 [n]."""

    part: PartRows
    p95: NDArray[np.float32]
    stratum: NDArray[np.int32]
    titles: Sequence[str]

    @classmethod
    def of(cls, part: PartRows, p95: NDArray[np.float32], strata: Strata, titles: Sequence[str]) -> CaseSource:
        """`titles`: position i is item index i + 1."""
        return cls(part, p95, strata.of(part.features), titles)

    def draw(self, latent: int, neighbours: Sequence[int], mix: Mix, seed: int = 0) -> tuple[Case, ...]:
        """Cases of one latent, each of another user; fewer than the mix says where there are not enough."""
        matrix, users = self.part.firings.by_latent, self.part.sample.user
        rows, values = _row(matrix, latent)
        strong = rows[values >= STRONG * self.p95[latent]]
        silent = np.ones(len(users), bool)
        silent[rows] = False
        rng = np.random.default_rng((seed, latent))
        draw = _Draw(users, rng)
        positives = draw.take(strong, mix.positives)
        chosen = [(CaseKind.POSITIVE, row) for row in positives]
        chosen += [(CaseKind.HARD, row) for row in draw.take(self._hard(silent, neighbours), mix.hard)]
        chosen += [(CaseKind.MATCHED, row) for row in self._matched(draw, silent, positives, mix.matched)]
        chosen += [(CaseKind.RANDOM, row) for row in draw.take(np.flatnonzero(silent), mix.random)]
        value = dict(zip(rows.tolist(), values.tolist(), strict=True))
        p95 = float(self.p95[latent])
        return tuple(
            Case(newest_titles(self.part, row, self.titles), value.get(row, 0.0) / p95, row, int(users[row]), kind)
            for kind, row in chosen
        )

    def _hard(self, silent: NDArray[np.bool_], neighbours: Sequence[int]) -> Ints:
        near = np.zeros(len(silent), bool)
        for other in neighbours:
            rows, values = _row(self.part.firings.by_latent, other)
            near[rows[values >= STRONG * self.p95[other]]] = True
        return np.flatnonzero(near & silent)

    def _matched(self, draw: _Draw, silent: NDArray[np.bool_], positives: list[int], count: int) -> list[int]:
        """Silent rows in the strata of the positives, as often as those come."""
        chosen: list[int] = []
        for row in positives[:count]:
            chosen += draw.take(np.flatnonzero(silent & (self.stratum == self.stratum[row])), 1)
        return chosen


class _Draw:
    """Draws rows at random so that no user is drawn twice."""

    def __init__(self, users: NDArray[np.int32], rng: np.random.Generator) -> None:
        self._users, self._rng = users, rng
        self._taken: set[int] = set()

    def take(self, rows: Ints, count: int) -> list[int]:
        """At most `count` of these rows."""
        chosen: list[int] = []
        for row in self._rng.permutation(rows).tolist():
            if len(chosen) == count:
                break
            user = int(self._users[row])
            if user not in self._taken:
                self._taken.add(user)
                chosen.append(row)
        return chosen


def newest_titles(part: PartRows, row: int, titles: Sequence[str]) -> tuple[str, ...]:
    """Titles of the newest items of a row's history, oldest first; `titles`: position i is item index i + 1."""
    start, end = int(part.windows.start[row]), int(part.windows.end[row])
    return tuple(titles[item - 1] for item in part.windows.items[max(start, end - MAX_TITLES) : end].tolist())


def _row(matrix: sparse.csr_matrix, latent: int) -> tuple[Ints, NDArray[np.float32]]:
    """Rows a latent fires on, and its values there."""
    begin, end = matrix.indptr[latent], matrix.indptr[latent + 1]
    return matrix.indices[begin:end].astype(np.int64), matrix.data[begin:end]
