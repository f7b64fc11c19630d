"""Facets learnt from histories: an old rule keeps the items that its facets had."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from recsae.concepts.learnt_facets import members_of, with_members
from recsae.concepts.records import LiteralRecord, RuleRecord
from recsae.datasets.facets import FacetTable

NAMES = ("genre=Horror", "like=Alien; Aliens", "popularity=top", "like=Heat; Casino")
FAMILIES = ("genre", "like", "popularity", "like")
MEMBERS = ([1, 2], [2, 3], [1, 4], [4])
IDS = ("a", "b", "c", "d")


def table(members: tuple[list[int], ...] = MEMBERS) -> FacetTable:
    matrix = np.zeros((len(IDS) + 1, len(members)), np.float32)
    for at, items in enumerate(members):
        matrix[items, at] = 1
    return FacetTable(NAMES[: len(members)], FAMILIES[: len(members)], sparse.csr_matrix(matrix))


def rule(*facets: str) -> RuleRecord:
    return RuleRecord(literals=tuple(LiteralRecord("", "recent", facet, 0.4) for facet in facets))


def test_only_learnt_facets_that_a_rule_names_are_kept() -> None:
    rules = [rule("genre=Horror", "like=Alien; Aliens"), rule("popularity=top"), RuleRecord(item_ids=("a",), window=1)]
    assert members_of(rules, table(), IDS) == {"like=Alien; Aliens": ("b", "c"), "popularity=top": ("a", "d")}


def test_old_members_replace_what_bears_their_name_and_facts_stay_as_they_are_now() -> None:
    old = members_of([rule("like=Alien; Aliens", "like=Heat; Casino")], table(), IDS)
    # Items are numbered anew, "c" is gone, one group has other members and the other is found no longer.
    now = table(([1, 3], [1], [2, 3]))
    index_of = {"x": 1, "b": 2, "a": 3, "d": 4}
    both = with_members(now, old, index_of)
    dense = both.matrix.toarray()
    column = {name: set(np.flatnonzero(dense[:, at]).tolist()) for at, name in enumerate(both.names)}
    assert column == {
        "genre=Horror": {1, 3},
        "popularity=top": {2, 3},
        "like=Alien; Aliens": {2},
        "like=Heat; Casino": {4},
    }
    assert both.families[list(both.names).index("like=Heat; Casino")] == "like"


def test_without_learnt_facets_the_table_stays() -> None:
    now = table()
    assert with_members(now, {}, {}) is now
