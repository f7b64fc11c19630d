"""The statistical describer: for every latent a rule of up to three literals.

A greedy search from the best unlike first literals. Every further literal is tried with all three joins and must gain;
what counts is said in `objective`. At the end the best readable formula over the literals found is taken, and the
mean value on every pattern of their truth becomes what the rule predicts. Latents are taken in blocks, so memory does
not grow with the width. Not here: item sets (`item_sets`), scoring on other users (`verification`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.cases import Cases
from recsae.concepts.counting import ROWS, CaseBlock, Counted, Floats, Totals, count, count_cells
from recsae.concepts.formulas import PATTERNS, formulas_of
from recsae.concepts.literals import LiteralBank
from recsae.concepts.objective import HOPELESS, Aim, explained, margin, natural_f1, objective
from recsae.concepts.rules import MAX_LITERALS_PER_RULE, FacetRules, Joined

# Fewer positives than this on construction users: no rule is fitted.
MIN_POSITIVES = 20
MIN_GAIN = 0.005
_STARTS = {Aim.VERIFIED: 2, Aim.PREDICTS: 1}
# Scratch per literal and latent: six counts, three ways to join, sums of four cells: 128 x 4,096 x 26 float32 = 55 MB.
_LATENTS_AT_ONCE = 128
# Rows that a pattern's mean is drawn towards the latent's own mean by.
_PRIOR_ROWS = 5.0


@dataclass(frozen=True)
class FittedRules:
    """The rules and, on the rows they were fitted to, float32 [w]: F1 at the natural mix, and the margin (`objective`).

    `popularity` int32 [w] is the best literal about popularity or length alone (-1 = none), a control.
    """

    rules: FacetRules
    f1: Floats
    margin: Floats
    popularity: NDArray[np.int32]


@dataclass
class _Growing:
    """Rules of m latents on the way.

    `literal` int32 [m, 3] in the order found, `cell` uint8 [m, n] the truth pattern of every row, `holds` bool [m, 8]
    the patterns on which the rule holds, `table` float32 [6, m] its counts, `worth` float32 [m].
    """

    literal: NDArray[np.int32]
    cell: NDArray[np.uint8]
    holds: NDArray[np.bool_]
    table: Floats
    worth: Floats


def fit_rules(bank: LiteralBank, cases: Cases, values: sparse.csr_matrix) -> FittedRules:
    """Rules for all latents; `cases` and `values` CSR [w, n] over the rows of `bank`."""
    width = cases.width
    rules = FacetRules.none(width)
    fitted = FittedRules(rules, np.zeros(width, np.float32), np.zeros(width, np.float32), np.full(width, -1, np.int32))
    if not bank.literals:
        return fitted
    for at in range(0, width, _LATENTS_AT_ONCE):
        latents = np.arange(at, min(at + _LATENTS_AT_ONCE, width))
        _fit_block(bank, CaseBlock.of(cases, values, latents), latents, fitted)
    few = cases.positives < MIN_POSITIVES
    rules.literal[few] = -1
    fitted.f1[few] = fitted.margin[few] = 0
    return fitted


def _fit_block(bank: LiteralBank, block: CaseBlock, latents: NDArray[np.int64], fitted: FittedRules) -> None:
    """Fits the rules of one block and writes them into `fitted`."""
    m = block.latents
    facet = np.array([literal.about_facet for literal in bank.literals])
    subject = np.unique([literal.facet or literal.kind for literal in bank.literals], return_inverse=True)[1]
    variance = _variance(block)
    single = count(block, bank, np.zeros((m, block.totals.rows), np.uint8), np.ones((m, 1), bool))
    share = explained(single, variance)
    if not facet.all():
        fitted.popularity[latents] = np.where(facet, -1.0, natural_f1(single.table, block.totals)).argmax(axis=1)
    found = {}
    for aim, starts in _STARTS.items():
        first = objective(single.table, block.totals, aim) + share
        start = first.argmax(axis=1)
        found[aim] = _grow(bank, block, single, start, facet, variance, aim)
        for _ in range(1, starts):
            first[subject[None, :] == subject[start][:, None]] = -np.inf
            start = first.argmax(axis=1)
            other = _grow(bank, block, single, start, facet, variance, aim)
            found[aim] = _chosen(found[aim], other, other.worth > found[aim].worth)
    hopeless = margin(found[Aim.VERIFIED].table, block.totals) < HOPELESS
    for aim, mine in ((Aim.VERIFIED, ~hopeless), (Aim.PREDICTS, hopeless)):
        _write(block, found[aim], mine, latents, facet, fitted, aim)


def _grow(
    bank: LiteralBank,
    block: CaseBlock,
    single: Counted,
    start: NDArray[np.int64],
    facet: NDArray[np.bool_],
    variance: Floats,
    aim: Aim,
) -> _Growing:
    """Adds the literal that gains most, twice, to rules that begin with `start` [m]."""
    m, rows = block.latents, np.arange(block.latents)
    literal = np.full((m, MAX_LITERALS_PER_RULE), -1, np.int32)
    literal[:, 0] = start
    holds = np.zeros((m, PATTERNS), bool)
    holds[:, 1] = True
    worth = (objective(single.table, block.totals, aim) + explained(single, variance))[rows, start]
    now = _Growing(literal, bank.truth.of(start), holds, single.table[:, rows, start], worth)
    for step in range(1, MAX_LITERALS_PER_RULE):
        cells = 1 << step
        counted = count(block, bank, now.cell, now.holds[:, :cells])
        share = explained(counted, variance)
        grows = now.literal[:, step - 1] >= 0
        plain: NDArray[np.bool_] = np.all(facet[np.maximum(now.literal, 0)] | (now.literal < 0), axis=1)
        choices = [_joined(counted.table, single.table, now.table[..., None], how) for how in Joined]
        scores = np.stack([objective(choice, block.totals, aim) + share for choice in choices])
        scores[Joined.OR][~(plain[:, None] & facet[None, :])] = -np.inf
        how, chosen = np.divmod(scores.transpose(1, 0, 2).reshape(m, -1).argmax(axis=1), len(bank.literals))
        gains = grows & (scores[how, rows, chosen] >= now.worth + MIN_GAIN)
        now.literal[gains, step] = chosen[gains]
        now.worth = np.where(gains, scores[how, rows, chosen], now.worth)
        tables = np.stack([choice[:, rows, chosen] for choice in choices])
        now.table = np.where(gains, np.moveaxis(tables[how, :, rows], 0, -1), now.table)
        now.cell = now.cell | np.where(gains[:, None], bank.truth.of(chosen) << step, 0).astype(np.uint8)
        _extend(now.holds, gains, how, cells)
    return now


def _joined(both: Floats, literal: Floats, rule: Floats, how: Joined) -> Floats:
    """Counts of "rule how literal" from those of both, of the literal and of the rule."""
    if how is Joined.AND:
        return both
    return rule - both if how is Joined.AND_NOT else rule + literal - both


def _extend(holds: NDArray[np.bool_], gains: NDArray[np.bool_], how: NDArray[np.int64], cells: int) -> None:
    """Patterns `cells` .. 2 `cells` - 1 are those of before with the new literal true."""
    old = holds[:, :cells].copy()
    never, always = np.zeros_like(old), np.ones_like(old)
    for join, without, with_it in ((Joined.AND, never, old), (Joined.AND_NOT, old, never), (Joined.OR, old, always)):
        chosen = gains & (how == join)
        holds[chosen, :cells] = without[chosen]
        holds[chosen, cells : 2 * cells] = with_it[chosen]


def _chosen(one: _Growing, other: _Growing, wins: NDArray[np.bool_]) -> _Growing:
    """The other's rule where `wins` [m] holds."""
    return _Growing(
        np.where(wins[:, None], other.literal, one.literal),
        np.where(wins[:, None], other.cell, one.cell),
        np.where(wins[:, None], other.holds, one.holds),
        np.where(wins, other.table, one.table),
        np.where(wins, other.worth, one.worth),
    )


def _write(
    block: CaseBlock,
    grown: _Growing,
    kept: NDArray[np.bool_],
    latents: NDArray[np.int64],
    facet: NDArray[np.bool_],
    fitted: FittedRules,
    aim: Aim,
) -> None:
    """Takes, where `kept` [m] holds, the best formula over a latent's literals, and the mean value on every pattern."""
    table, sums = count_cells(block, grown.cell, PATTERNS)
    size = (grown.literal >= 0).sum(axis=1)
    plain: NDArray[np.bool_] = np.all(facet[np.maximum(grown.literal, 0)] | (grown.literal < 0), axis=1)
    mean = sums.sum(axis=1, keepdims=True) / max(1, block.totals.rows)
    level = (sums + _PRIOR_ROWS * mean) / (table[ROWS] + _PRIOR_ROWS)
    for literals in range(1, MAX_LITERALS_PER_RULE + 1):
        mine = np.flatnonzero((size == literals) & kept)
        if not len(mine):
            continue
        formulas, patterns = formulas_of(literals), 1 << literals
        counts: Floats = np.einsum("kmp,fp->kmf", table[:, mine, :patterns], formulas.holds.astype(np.float32))
        worth = objective(counts, _some(block, mine), aim)
        worth[~plain[mine][:, None] & formulas.alternatives[None, :]] = -np.inf
        chosen = worth.argmax(axis=1)
        at, rows = latents[mine], np.arange(len(mine))
        order = formulas.order[chosen]
        said = np.take_along_axis(grown.literal[mine], np.maximum(order, 0), axis=1)
        fitted.rules.literal[at] = np.where(order >= 0, said, -1)
        fitted.rules.joined[at] = formulas.joined[chosen]
        fitted.rules.level[at] = np.take_along_axis(level[mine], _reordered(order, literals), axis=1)
        fitted.f1[at] = natural_f1(counts, _some(block, mine))[rows, chosen]
        fitted.margin[at] = margin(counts, _some(block, mine))[rows, chosen]


def _reordered(order: NDArray[np.int8], literals: int) -> NDArray[np.int64]:
    """For each pattern of the literals as said, the pattern of them as found: int64 [m, 8]."""
    said = np.arange(PATTERNS) & ((1 << literals) - 1)
    found = np.zeros((len(order), PATTERNS), np.int64)
    for place in range(literals):
        found |= ((said[None, :] >> place) & 1) << order[:, place : place + 1].astype(np.int64)
    return found


def _some(block: CaseBlock, mine: NDArray[np.int64]) -> Totals:
    totals = block.totals
    return Totals(totals.positives[mine], totals.silent[mine], totals.hard[mine], totals.matched[mine], totals.rows)


def _variance(block: CaseBlock) -> Floats:
    """N Var of the values of each latent, float32 [m]."""
    values = block.values
    total = np.asarray(values.sum(axis=1)).ravel()
    squares = np.asarray(values.multiply(values).sum(axis=1)).ravel()
    return np.asarray(squares - total**2 / max(1, block.totals.rows), np.float32)
