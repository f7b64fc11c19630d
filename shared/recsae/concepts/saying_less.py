"""The fewest literals that say what a rule says: what one literal implies of another needs no words.

"Mostly Horror and recent Horror" is "mostly Horror"; "often War, not at times War, or last War" is "last War". Only for
labels; the rule and its predicate stay as they were found, since every pattern of their literals predicts a strength of
its own. Not here: words (`labels`).
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.features import RECENCY_DECAY, RECENT_ITEMS
from recsae.concepts.formulas import formulas_of
from recsae.concepts.literals import LAST, RECENT
from recsae.concepts.records import LiteralRecord, RuleRecord
from recsae.concepts.rules import Joined, join
from recsae.datasets.facet_names import BOTH

# The newest item's weight among ten: a facet it carries has at least this recency-weighted share.
_NEWEST_WEIGHT = (1 - RECENCY_DECAY) / (1 - RECENCY_DECAY**RECENT_ITEMS)
_JOINED = {"and": Joined.AND, "and not": Joined.AND_NOT, "or": Joined.OR}
_WORDS = {joined: word for word, joined in _JOINED.items()}


def shortest(rule: RuleRecord) -> RuleRecord:
    """The rule with as few of its literals as say the same on every history, without its levels.

    A rule that never or always holds has no shorter form and stays.
    """
    literals = rule.literals
    possible = np.flatnonzero([_possible(literals, pattern) for pattern in range(1 << len(literals))])
    holds = _holds(rule)[possible]
    if not holds.any() or holds.all():
        return rule
    for size in range(1, len(literals)):
        for kept in itertools.combinations(range(len(literals)), size):
            seen = sum(((possible >> literal) & 1) << place for place, literal in enumerate(kept))
            formulas = formulas_of(size)
            same = np.flatnonzero((formulas.holds[:, seen] == holds).all(axis=1))
            if len(same):
                return _said([literals[at] for at in kept], formulas.order[same[0]], formulas.joined[same[0]])
    return rule


def _holds(rule: RuleRecord) -> NDArray[np.bool_]:
    """Whether the rule holds on each pattern of its literals, bool [2^m]."""
    patterns = np.arange(1 << len(rule.literals))
    truth = [((patterns >> at) & 1).astype(np.uint8) for at in range(len(rule.literals))]
    holds = truth[0] if truth else np.zeros(1, np.uint8)
    for literal, true in zip(rule.literals[1:], truth[1:], strict=True):
        holds = join(holds, true, _JOINED[literal.joined])
    return holds.astype(bool)


def _possible(literals: tuple[LiteralRecord, ...], pattern: int) -> bool:
    """False for a pattern in which a literal is true and another that follows from it is not."""
    true = [bool(pattern >> at & 1) for at in range(len(literals))]
    pairs = itertools.permutations(range(len(literals)), 2)
    return not any(true[one] and not true[other] and _implies(literals[one], literals[other]) for one, other in pairs)


def _implies(one: LiteralRecord, other: LiteralRecord) -> bool:
    # A pair of values is an item's that has both.
    if other.facet != one.facet and other.facet not in one.facet.split(BOTH):
        return False
    if one.kind == other.kind:
        return one.threshold >= other.threshold
    return one.kind == LAST and other.kind == RECENT and other.threshold < _NEWEST_WEIGHT


def _said(literals: list[LiteralRecord], order: NDArray[np.int8], joined: NDArray[np.int8]) -> RuleRecord:
    return RuleRecord(
        tuple(
            LiteralRecord(
                _WORDS[Joined(int(joined[step]))] if step else "",
                literals[at].kind,
                literals[at].facet,
                literals[at].threshold,
            )
            for step, at in enumerate(order.tolist())
            if at >= 0
        )
    )
