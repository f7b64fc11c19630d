"""Facets that are learnt from histories, kept with a dictionary, so that its rules mean the same on later data.

A genre is a fact about an item. Who belongs to "consumed together with Alien", or to the most popular quarter, follows
from the histories it was learnt from, and the same name means other items after a refresh: a rule that is to be tested
unchanged takes its members along. Not here: how such facets are made (`recsae.datasets.facets`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import sparse

from recsae.concepts.records import RuleRecord
from recsae.datasets.facet_names import LIKE
from recsae.datasets.facets import FacetTable

# Families of `recsae.datasets.facets` whose members follow from histories.
_LEARNT = (LIKE, "popularity")


def members_of(rules: Iterable[RuleRecord], facets: FacetTable, item_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Item ids of every learnt facet that a rule names, by facet."""
    named = {literal.facet for rule in rules for literal in rule.literals}
    columns = facets.matrix.tocsc()
    return {
        name: tuple(item_ids[item - 1] for item in _rows(columns, at))
        for at, (name, family) in enumerate(zip(facets.names, facets.families, strict=True))
        if family in _LEARNT and name in named
    }


def with_members(facets: FacetTable, members: Mapping[str, Sequence[str]], index_of: Mapping[str, int]) -> FacetTable:
    """The table in which the facets of `members` hold these items, whatever items bear their names now.

    `index_of` gives item indices, from 1, by id; items it does not know are left out.
    """
    if not members:
        return facets
    kept = np.array([at for at, name in enumerate(facets.names) if name not in members], np.int64)
    pairs = [
        (index_of[item_id], at) for at, ids in enumerate(members.values()) for item_id in ids if item_id in index_of
    ]
    rows, columns = zip(*pairs, strict=True) if pairs else ((), ())
    shape = (facets.matrix.shape[0], len(members))
    added = sparse.csr_matrix((np.ones(len(pairs), np.float32), (rows, columns)), shape=shape)
    return FacetTable(
        (*(facets.names[at] for at in kept.tolist()), *members),
        (*(facets.families[at] for at in kept.tolist()), *(name.partition("=")[0] for name in members)),
        sparse.hstack([facets.matrix[:, kept], added], format="csr"),
    )


def _rows(columns: sparse.csc_matrix, at: int) -> list[int]:
    rows: list[int] = np.sort(columns.indices[columns.indptr[at] : columns.indptr[at + 1]]).tolist()
    return rows
