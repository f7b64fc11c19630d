"""The statistical describer: for every latent a rule of up to three literals, chosen to maximise F1.

Cases are weighed as they come (the natural mix, docs/method.md, section 5): positives are rows of strength >= .5, weak
firings count neither way. F1 of "rule joined with literal" for all latents and literals at once needs three counts,

    2 TP / (P + predicted),  predicted = true rows - weak true rows,

and the counts of `and not` and `or` follow from those of `and`, so that one sparse product per step gives all of
them. A greedy search from the best two unlike first literals; a longer rule must gain at least .01.
Not here: item sets (`item_sets`), scoring on other users (`verification`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.literals import LAST, RECENT, LiteralBank
from recsae.concepts.rules import MAX_LITERALS_PER_RULE, FacetRules, Joined

Floats = NDArray[np.float32]

# Fewer positives than this on construction users: no rule is fitted.
MIN_POSITIVES = 20
MIN_GAIN = 0.01
_STARTS = 2
# Scratch: literals x rows float32, 1,024 x 4,096 = 17 MB.
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class FittedRules:
    """The rules, their F1 on the rows they were fitted to float32 [w], and the best popularity literal int32 [w]."""

    rules: FacetRules
    f1: Floats
    popularity: NDArray[np.int32]


@dataclass(frozen=True)
class _Cases:
    """0/1 CSR [w, n] of positives and weak firings, and positives per latent [w]."""

    strong: sparse.csr_matrix
    weak: sparse.csr_matrix
    positives: Floats


@dataclass(frozen=True)
class _Counts:
    """Per latent (and literal): rows counted as true positives, and as predicted."""

    tp: Floats
    predicted: Floats

    def f1(self, positives: Floats) -> Floats:
        below = positives.reshape(-1, *[1] * (self.tp.ndim - 1)) + self.predicted
        ratio: Floats = np.divide(2 * self.tp, below, out=np.zeros_like(self.tp), where=below > 0)
        return ratio


def fit_rules(bank: LiteralBank, strong: sparse.csr_matrix, weak: sparse.csr_matrix) -> FittedRules:
    """Rules for all latents; `strong` and `weak` are 0/1 CSR [w, n] over the rows of `bank.truth` [L, n]."""
    width = strong.shape[0]
    cases = _Cases(strong, weak, np.diff(strong.indptr).astype(np.float32))
    rules = FacetRules(
        np.full((width, MAX_LITERALS_PER_RULE), -1, np.int32), np.zeros((width, MAX_LITERALS_PER_RULE), np.int8)
    )
    best = FittedRules(rules, np.zeros(width, np.float32), np.full(width, -1, np.int32))
    if not bank.literals:
        return best
    singles = _single_counts(bank, cases)
    first_f1 = singles.f1(cases.positives)
    kinds = np.array([literal.kind for literal in bank.literals])
    best = FittedRules(rules, best.f1, _best_of(first_f1, np.isin(kinds, (RECENT, LAST))))
    subjects = _subjects(bank)
    blocked = np.zeros(first_f1.shape, bool)
    for _ in range(_STARTS):
        start = np.where(blocked, -1.0, first_f1).argmax(axis=1).astype(np.int32)
        best = _better(best, _grow(bank, cases, singles, start))
        blocked |= subjects[None, :] == subjects[start][:, None]
    best.rules.literal[cases.positives < MIN_POSITIVES] = -1
    best.f1[cases.positives < MIN_POSITIVES] = 0
    return best


def _grow(bank: LiteralBank, cases: _Cases, singles: _Counts, start: NDArray[np.int32]) -> FittedRules:
    """Adds the literal that gains most, twice, to rules that begin with `start` [w]."""
    width = len(start)
    rules = FacetRules(np.full((width, 3), -1, np.int32), np.zeros((width, 3), np.int8))
    rules.literal[:, 0] = start
    latents = np.arange(width)
    now = _Counts(singles.tp[latents, start], singles.predicted[latents, start])
    f1 = now.f1(cases.positives)
    for step in range(1, MAX_LITERALS_PER_RULE):
        grows = rules.literal[:, step - 1] >= 0
        options = _joined_counts(bank, cases, singles, rules, now)
        scores = np.stack([option.f1(cases.positives) for option in options])
        scores[Joined.OR][~_alternatives(bank, rules)] = 0
        flat = np.where(grows[None, :, None], scores, 0).transpose(1, 0, 2).reshape(width, -1)
        choice = flat.argmax(axis=1)
        gain = flat[latents, choice] >= f1 + MIN_GAIN
        how, literal = np.divmod(choice, len(bank.literals))
        rules.literal[gain, step] = literal[gain]
        rules.joined[gain, step] = how[gain]
        tp = np.stack([option.tp for option in options])[how, latents, literal]
        predicted = np.stack([option.predicted for option in options])[how, latents, literal]
        now = _Counts(np.where(gain, tp, now.tp), np.where(gain, predicted, now.predicted))
        f1 = now.f1(cases.positives)
    return FittedRules(rules, f1, np.full(width, -1, np.int32))


def _single_counts(bank: LiteralBank, cases: _Cases) -> _Counts:
    weak = _overlap(cases.weak, bank.truth)
    true_rows = bank.truth.sum(axis=1, dtype=np.int64).astype(np.float32)
    return _Counts(_overlap(cases.strong, bank.truth), true_rows[None, :] - weak)


def _joined_counts(
    bank: LiteralBank, cases: _Cases, singles: _Counts, rules: FacetRules, now: _Counts
) -> tuple[_Counts, _Counts, _Counts]:
    """Counts [w, L] of the rules joined with every literal by and, and not, or (the order of `Joined`)."""
    strong_inside, weak_inside = _inside(cases.strong, rules, bank), _inside(cases.weak, rules, bank)
    tp = _overlap(strong_inside, bank.truth)
    both = _rule_overlap(bank, rules) - _overlap(weak_inside, bank.truth)
    rule_tp, rule_predicted = now.tp[:, None], now.predicted[:, None]
    return (
        _Counts(tp, both),
        _Counts(rule_tp - tp, rule_predicted - both),
        _Counts(rule_tp + singles.tp - tp, rule_predicted + singles.predicted - both),
    )


def _overlap(cases: sparse.csr_matrix, truth: NDArray[np.uint8]) -> Floats:
    """Rows where a case and a literal meet, float32 [w, L]: exact, counts stay below 2^24."""
    total = np.zeros((cases.shape[0], len(truth)), np.float32)
    by_row = cases.tocsc()
    for at in range(0, truth.shape[1], _ROWS_AT_ONCE):
        block = np.ascontiguousarray(truth[:, at : at + _ROWS_AT_ONCE].T, dtype=np.float32)
        total += by_row[:, at : at + _ROWS_AT_ONCE].tocsr() @ block
    return total


def _rule_overlap(bank: LiteralBank, rules: FacetRules) -> Floats:
    """Rows where a latent's rule and a literal are both true, float32 [w, L]; each distinct rule is counted once."""
    keys = np.concatenate([rules.literal, rules.joined.astype(np.int32)], axis=1)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    total = np.zeros((len(first), len(bank.literals)), np.float32)
    for at in range(0, bank.truth.shape[1], _ROWS_AT_ONCE):
        block = bank.truth[:, at : at + _ROWS_AT_ONCE]
        total += rules.truth(block, first).astype(np.float32) @ block.T.astype(np.float32)
    return total[inverse.ravel()]


def _inside(cases: sparse.csr_matrix, rules: FacetRules, bank: LiteralBank) -> sparse.csr_matrix:
    """The cases on which their own latent's rule holds."""
    latents = np.repeat(np.arange(cases.shape[0]), np.diff(cases.indptr))
    rows = cases.indices
    holds = bank.truth[np.maximum(rules.literal[latents, 0], 0), rows]
    for step in range(1, MAX_LITERALS_PER_RULE):
        literal, joined = rules.literal[latents, step], rules.joined[latents, step]
        other = bank.truth[np.maximum(literal, 0), rows]
        for how, value in (
            (Joined.AND, holds & other),
            (Joined.AND_NOT, holds & (1 - other)),
            (Joined.OR, holds | other),
        ):
            holds = np.where((literal >= 0) & (joined == how), value, holds)
    return sparse.csr_matrix((holds.astype(np.float32), rows, cases.indptr), shape=cases.shape)


def _better(one: FittedRules, other: FittedRules) -> FittedRules:
    wins = other.f1 > one.f1
    rules = FacetRules(
        np.where(wins[:, None], other.rules.literal, one.rules.literal),
        np.where(wins[:, None], other.rules.joined, one.rules.joined),
    )
    return FittedRules(rules, np.maximum(one.f1, other.f1), one.popularity)


def _best_of(f1: Floats, excluded: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The best literal of those not excluded, int32 [w]; -1 when there is none."""
    if excluded.all():
        return np.full(len(f1), -1, np.int32)
    best: NDArray[np.int32] = np.where(excluded[None, :], -1.0, f1).argmax(axis=1).astype(np.int32)
    return best


def _subjects(bank: LiteralBank) -> NDArray[np.int64]:
    """A number per facet (or kind, where there is no facet): unlike starts ask about unlike things."""
    names = [literal.facet or literal.kind for literal in bank.literals]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _alternatives(bank: LiteralBank, rules: FacetRules) -> NDArray[np.bool_]:
    """Where "or" may be used, bool [w, L]: between facets only. "Horror or a long history" is no concept."""
    facet = np.array([literal.kind in (RECENT, LAST) for literal in bank.literals])
    other_than_facet = ~facet[np.maximum(rules.literal, 0)] & (rules.literal >= 0)
    only_facets: NDArray[np.bool_] = np.logical_not(np.any(other_than_facet, axis=1))
    allowed: NDArray[np.bool_] = only_facets[:, None] & facet[None, :]
    return allowed
