"""A label leaves out what follows from the rest, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.features import RowFeatures, build_features, locate, log_item_counts
from recsae.concepts.records import LiteralRecord, RuleRecord
from recsae.concepts.rules import compile_rules
from recsae.concepts.saying_less import shortest
from recsae.datasets.facets import FacetTable
from recsae.datasets.schema import Histories

_ITEMS, _USERS, _LENGTH = 12, 40, 45
_FACETS = ("g=A", "g=B", "g=A ∩ h=C", "h=C")
_THRESHOLDS = {"recent": (0.1, 0.25, 0.4), "usual": (0.05, 0.2), "last": (1.0,), "before": (1.0,)}


@dataclass(frozen=True)
class Rows:
    user: NDArray[np.int32]
    position: NDArray[np.int32]
    item: NDArray[np.int32]


def rule(*literals: tuple[str, str, str, float]) -> RuleRecord:
    return RuleRecord(tuple(LiteralRecord(*each) for each in literals))


@pytest.fixture(scope="module")
def features() -> RowFeatures:
    rng = np.random.default_rng(0)
    items = rng.integers(1, _ITEMS + 1, _USERS * _LENGTH)
    owner, time = np.repeat(np.arange(_USERS), _LENGTH), np.tile(np.arange(float(_LENGTH)), _USERS)
    histories = Histories.from_rows(owner, items, time, _USERS)
    rows = Rows(owner.astype(np.int32), time.astype(np.int32), items.astype(np.int32))
    a, b, c = (rng.random(_ITEMS + 1) < share for share in (0.3, 0.2, 0.5))
    matrix = np.stack([a, b, a & c, c], axis=1).astype(np.float32)
    matrix[0] = 0
    facets = FacetTable(_FACETS, ("g", "g", "pair", "h"), sparse.csr_matrix(matrix))
    return build_features(locate(histories, rows, 50), facets, log_item_counts(histories, _ITEMS))


def test_a_shorter_rule_holds_on_the_same_histories(features: RowFeatures) -> None:
    rng = np.random.default_rng(1)
    rules = []
    for _ in range(600):
        literals = []
        for step in range(3):
            kind = str(rng.choice(["recent", "usual", "last", "before", "length"]))
            joined = "" if step == 0 else str(rng.choice(["and", "and not", "or"]))
            facet = "" if kind == "length" else str(rng.choice(_FACETS))
            literals.append((joined, kind, facet, float(rng.choice(_THRESHOLDS.get(kind, (5.0, 20.0))))))
        rules.append(rule(*literals))
    shorter = [shortest(one) for one in rules]
    every = np.arange(len(rules))
    before, after = (compile_rules(some).predictor(features)(every) for some in (rules, shorter))
    assert (before != after).nnz == 0
    saved = sum(len(one.literals) - len(less.literals) for one, less in zip(rules, shorter, strict=True))
    assert saved > 50


@pytest.mark.parametrize(
    ("long", "short"),
    [
        (
            rule(("", "usual", "g=B", 0.2), ("and not", "usual", "g=B", 0.05), ("or", "last", "g=B", 1)),
            rule(("", "last", "g=B", 1)),
        ),
        (rule(("", "recent", "g=A", 0.1), ("or", "recent", "g=A ∩ h=C", 0.4)), rule(("", "recent", "g=A", 0.1))),
        (rule(("", "last", "g=A", 1), ("and", "recent", "g=A", 0.25)), rule(("", "last", "g=A", 1))),
        (rule(("", "length", "", 20), ("and", "length", "", 5)), rule(("", "length", "", 20))),
    ],
)
def test_what_follows_from_the_rest_is_left_out(long: RuleRecord, short: RuleRecord) -> None:
    assert shortest(long) == short


@pytest.mark.parametrize(
    "kept",
    [
        rule(("", "last", "g=A", 1), ("and", "recent", "g=A", 0.4)),
        rule(("", "recent", "g=A", 0.1), ("and not", "recent", "g=A", 0.4)),
        rule(("", "usual", "g=A", 0.05), ("and not", "usual", "g=A", 0.05)),  # never holds: there is no shorter form
        rule(),
    ],
)
def test_nothing_else_is_left_out(kept: RuleRecord) -> None:
    assert shortest(kept) == kept
