"""Rules of many latents as arrays, their truth on many rows, and their stored form.

A rule is up to three literals joined from the left by and, and not, or; an item set is "one of at most six items is
among the newest one to three". Truth is sparse and asked for in blocks of latents, so memory does not grow with the
width. Not here: how rules are found (`describing`, `item_sets`), their words (`labels`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.features import NEWEST, RowFeatures
from recsae.concepts.literals import Literal, PackedTruth, pack_truth
from recsae.concepts.records import LiteralRecord, RuleRecord

MAX_LITERALS_PER_RULE = 3
MAX_SET_ITEMS = 6


class Joined(IntEnum):
    """How a literal is joined to the truth of those before it."""

    AND = 0
    AND_NOT = 1
    OR = 2


_WORDS = {Joined.AND: "and", Joined.AND_NOT: "and not", Joined.OR: "or"}
_JOINED = {word: joined for joined, word in _WORDS.items()}


class Predictor(Protocol):
    """Says on which rows the labels of some latents hold: 0/1 CSR [len(latents), n]."""

    def __call__(self, latents: NDArray[np.int64]) -> sparse.csr_matrix:
        """Truth of the labels of `latents` [m]."""
        ...


def restricted(predict: Predictor, rows: NDArray[np.int64]) -> Predictor:
    """The same labels on some rows, in ascending order."""
    return lambda latents: predict(latents).tocsr()[:, rows]


def either(first: Predictor, second: Predictor, uses_second: NDArray[np.bool_]) -> Predictor:
    """The label of `second` for latents where `uses_second` [w] holds, of `first` for all others."""

    def predict(latents: NDArray[np.int64]) -> sparse.csr_matrix:
        chosen = uses_second[latents].astype(np.float32)
        matrix = sparse.diags(1 - chosen) @ first(latents) + sparse.diags(chosen) @ second(latents)
        matrix = matrix.tocsr()
        matrix.eliminate_zeros()
        return matrix

    return predict


@dataclass(frozen=True)
class FacetRules:
    """Rules of w latents: `literal` int32 [w, 3] into a list of literals (-1 = none; a first -1 = no rule).

    `joined` int8 [w, 3] how each is joined to those before; `level` float32 [w, 8] what is predicted for each pattern
    of their truth (see `RuleRecord.levels`).
    """

    literal: NDArray[np.int32]
    joined: NDArray[np.int8]
    level: NDArray[np.float32]

    @classmethod
    def none(cls, width: int) -> FacetRules:
        """No rule for any latent."""
        shape = (width, MAX_LITERALS_PER_RULE)
        level = np.zeros((width, 1 << MAX_LITERALS_PER_RULE), np.float32)
        return cls(np.full(shape, -1, np.int32), np.zeros(shape, np.int8), level)

    def truth(self, literal_truth: NDArray[np.uint8], latents: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Truth uint8 [m, n] of the rules of `latents` [m], from that of all literals [L, n]. No rule = never."""
        first = self.literal[latents, 0]
        result: NDArray[np.uint8] = literal_truth[np.maximum(first, 0)]
        result[first < 0] = 0
        for step in range(1, self.literal.shape[1]):
            literal, joined = self.literal[latents, step], self.joined[latents, step]
            for how in Joined:
                rows = np.flatnonzero((literal >= 0) & (joined == how))
                if len(rows):
                    result[rows] = join(result[rows], literal_truth[literal[rows]], how)
        return result

    def patterns(self, literal_truth: NDArray[np.uint8], latents: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Which of each rule's literals are true, as a number (bit i = literal i), uint8 [m, n]."""
        pattern = np.zeros((len(latents), literal_truth.shape[1]), np.uint8)
        for step in range(self.literal.shape[1]):
            literal = self.literal[latents, step]
            known = np.flatnonzero(literal >= 0)
            pattern[known] |= literal_truth[literal[known]] << step
        return pattern

    def records(self, literals: Sequence[Literal], p95: NDArray[np.float32]) -> list[RuleRecord]:
        """The stored form, one per latent; levels in units of `p95` [w]."""
        levels = (self.level / p95[:, None]).round(6).tolist()
        sizes = (self.literal >= 0).sum(axis=1).tolist()
        return [
            RuleRecord(literals=tuple(_literal_records(literals, row, how)), levels=tuple(level[: 1 << size]))
            if size
            else RuleRecord()
            for row, how, level, size in zip(self.literal.tolist(), self.joined.tolist(), levels, sizes, strict=True)
        ]


def join(left: NDArray[np.uint8], right: NDArray[np.uint8], how: Joined) -> NDArray[np.uint8]:
    """`left how right` of 0/1 arrays."""
    if how is Joined.AND:
        return left & right
    if how is Joined.OR:
        return left | right
    return left & (1 - right)


@dataclass(frozen=True)
class CompiledRules:
    """Rules and the literals they name, ready to be tested on any rows."""

    literals: tuple[Literal, ...]
    rules: FacetRules

    def predictor(self, features: RowFeatures) -> Predictor:
        """A predictor over the rows of `features`."""
        known = pack_truth(self.literals, features)

        def predict(latents: NDArray[np.int64]) -> sparse.csr_matrix:
            rules, truth = self._asked(known, latents)
            return sparse.csr_matrix(rules.truth(truth, np.arange(len(latents))))

        return predict

    def patterns(self, features: RowFeatures) -> Callable[[NDArray[np.int64]], NDArray[np.uint8]]:
        """Which literals of each rule are true: a function of latents [m] to numbers uint8 [m, n]."""
        known = pack_truth(self.literals, features)

        def ask(latents: NDArray[np.int64]) -> NDArray[np.uint8]:
            rules, truth = self._asked(known, latents)
            return rules.patterns(truth, np.arange(len(latents)))

        return ask

    def strengths(self, features: RowFeatures) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
        """What rules predict: a function of latents [m] to strengths float32 [m, n]; 0 for a latent without a rule."""
        patterns = self.patterns(features)

        def predict(latents: NDArray[np.int64]) -> NDArray[np.float32]:
            pattern = patterns(latents).astype(np.int64)
            level: NDArray[np.float32] = np.take_along_axis(self.rules.level[latents], pattern, axis=1)
            return level

        return predict

    def _asked(self, known: PackedTruth, latents: NDArray[np.int64]) -> tuple[FacetRules, NDArray[np.uint8]]:
        """The rules of `latents` and the truth of the literals they name, and of no others."""
        literal = self.rules.literal[latents]
        used = np.unique(literal[literal >= 0])
        own = FacetRules(
            np.where(literal >= 0, np.searchsorted(used, literal), -1).astype(np.int32),
            self.rules.joined[latents],
            self.rules.level[latents],
        )
        # A rule without literals asks for the truth of the first literal and does not use it.
        return own, known.of(used) if len(used) else np.zeros((1, known.rows), np.uint8)


def compile_rules(records: Sequence[RuleRecord]) -> CompiledRules:
    """Rules as stored, as arrays; a rule without literals never holds."""
    table: dict[Literal, int] = {}
    rules = FacetRules.none(len(records))
    for row, record in enumerate(records):
        for step, stored in enumerate(record.literals):
            asked = Literal(stored.kind, stored.facet, stored.threshold)
            rules.literal[row, step] = table.setdefault(asked, len(table))
            rules.joined[row, step] = _JOINED.get(stored.joined, Joined.AND)
        if record.literals and record.levels:
            rules.level[row, : len(record.levels)] = record.levels
    return CompiledRules(tuple(table), rules)


@dataclass(frozen=True)
class ItemSets:
    """`items` int32 [w, 6] (0 = none) and `window` int8 [w] (1 to 3 newest items; 0 = no set)."""

    items: NDArray[np.int32]
    window: NDArray[np.int8]

    def predictor(self, features: RowFeatures, n_items: int) -> Predictor:
        """A predictor over the rows of `features`."""
        by_window = [occurrences(features, window, n_items) for window in range(1, NEWEST + 1)]

        def predict(latents: NDArray[np.int64]) -> sparse.csr_matrix:
            result = sparse.csr_matrix((len(latents), len(features)), dtype=np.float32)
            for window, item_rows in enumerate(by_window, 1):
                chosen = np.where((self.window[latents] == window)[:, None], self.items[latents], 0)
                row, _ = np.nonzero(chosen)
                shape = (len(latents), n_items + 1)
                members = sparse.csr_matrix((np.ones(len(row), np.float32), (row, chosen[chosen > 0])), shape=shape)
                result = result + members @ item_rows
            result.data[:] = 1
            return result.tocsr()

        return predict

    def records(self, item_ids: Sequence[str]) -> list[RuleRecord]:
        """The stored form, one per latent; `item_ids` position i is item index i + 1."""
        return [
            RuleRecord(item_ids=tuple(item_ids[item - 1] for item in row if item > 0), window=window)
            for row, window in zip(self.items.tolist(), self.window.tolist(), strict=True)
        ]


def compile_item_sets(records: Sequence[RuleRecord], item_ids: Sequence[str]) -> ItemSets:
    """Item sets as stored, as arrays."""
    index = {item_id: at for at, item_id in enumerate(item_ids, 1)}
    items = np.zeros((len(records), MAX_SET_ITEMS), np.int32)
    for row, record in enumerate(records):
        items[row, : len(record.item_ids)] = [index[item_id] for item_id in record.item_ids]
    return ItemSets(items, np.array([record.window for record in records], np.int8))


def occurrences(features: RowFeatures, window: int, n_items: int) -> sparse.csr_matrix:
    """0/1 CSR [n_items + 1, n]: the rows on which an item is among the newest `window`. Padding's row is empty."""
    newest = features.newest[:, :window]
    row, column = np.nonzero(newest)
    ones = np.ones(len(row), np.float32)
    matrix = sparse.csr_matrix((ones, (newest[row, column], row)), shape=(n_items + 1, len(features)))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _literal_records(literals: Sequence[Literal], row: list[int], joined: list[int]) -> list[LiteralRecord]:
    return [
        LiteralRecord(
            "" if step == 0 else _WORDS[Joined(joined[step])],
            literals[at].kind,
            literals[at].facet,
            literals[at].threshold,
        )
        for step, at in enumerate(row)
        if at >= 0
    ]
