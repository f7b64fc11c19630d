"""The item sets effects are counted in: every facet, and for a concept that promotes no facet the items it promotes.

Also whether a concept's input and output labels agree. Not here: how output facets are found (`outputs`, `enrichment`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.outputs import output_items
from recsae.concepts.records import ConceptRecord
from recsae.datasets.facets import FacetTable, parts_of

_COMPARED = 3

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class OutputSets:
    """`member` 0/1 [n_items + 1, m]; `own` int64 [c]: the column of each concept; `facet` names it, "" = its items."""

    member: sparse.csr_matrix
    own: Ints
    facet: tuple[str, ...]


def output_sets(
    concepts: Sequence[ConceptRecord], facets: FacetTable, w_dec: Floats, item_vectors: Floats
) -> OutputSets:
    """Sets of `concepts`, whose decoder rows are `w_dec` [c, d]: facets first, then sets of promoted items."""
    columns = {name: at for at, name in enumerate(facets.names)}
    named = [next((one.facet for one in concept.output_facets if one.facet in columns), "") for concept in concepts]
    bare = [at for at, facet in enumerate(named) if not facet]
    blocks = [sparse.csr_matrix(facets.matrix)]
    if bare:
        blocks.append(sparse.csr_matrix(output_items(w_dec[bare], item_vectors).labelled.T))
    place = {at: len(facets.names) + number for number, at in enumerate(bare)}
    own = np.array([columns[facet] if facet else place[at] for at, facet in enumerate(named)], np.int64)
    return OutputSets(sparse.csr_matrix(sparse.hstack(blocks)), own, tuple(named))


def labels_agree(concept: ConceptRecord) -> bool:
    """True when one of the facets the output label names is one the input label names.

    The input label names the facets its rule asks for; a rule without any leaves the most enriched input facets.
    """
    literals = [literal for literal in concept.rule.literals if literal.facet and literal.joined != "and not"]
    asked = [part for literal in literals for part in (literal.facet, *parts_of(literal.facet))]
    inputs = asked or [one.facet for one in concept.input_facets[:_COMPARED]]
    return any(one.facet in inputs for one in concept.output_facets[:_COMPARED])
