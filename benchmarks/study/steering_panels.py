"""The rows steering studies are fitted and scored on, out of a study's material.

Not here: what is done with them (`steering`, `debiasing`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from benchmarks.study.material import Material
from recsae.concepts.causal.board import Head
from recsae.concepts.causal.panel import Panel, build_panel


@dataclass(frozen=True)
class SteeringPanels:
    """Construction users one item before their newest (`fit`) and at it (`size`), verification users (`score`)."""

    fit: Panel
    size: Panel
    score: Panel
    head: Head
    facets: sparse.csr_matrix

    @classmethod
    def of(cls, material: Material) -> SteeringPanels:
        """All held-out users of the material."""
        inputs, targets = material.inputs, material.split.test
        rows = (inputs.shards, inputs.histories, targets, inputs.pseudonyms, inputs.parts[:-1])
        every = len(inputs.pseudonyms)
        now, before = build_panel(*rows, most=every), build_panel(*rows, most=every, back=1)
        head = Head(material.item_vectors, material.item_bias)
        constructs = ~now.verifies
        return cls(before.of(~before.verifies), now.of(constructs), now.of(now.verifies), head, inputs.facets.matrix)


def tagged(panel: Panel, head: Head, facets: sparse.csr_matrix, column: int) -> tuple[Panel, Head]:
    """The panel and the head with one dimension more, in which a step is a bonus for every item of a facet."""
    tag = np.asarray(facets[:, [column]].todense(), np.float32)
    return widened(panel, head, tag.ravel())


def widened(panel: Panel, head: Head, bonus: np.ndarray) -> tuple[Panel, Head]:
    """The same for any bonus per item, float32 [n_items + 1]: re-ranking as a direction."""
    x = np.concatenate([panel.x, np.zeros((len(panel), 1), np.float32)], axis=1)
    vectors = np.concatenate([head.vectors, bonus[:, None].astype(np.float32)], axis=1)
    return replace(panel, x=x), Head(vectors, head.biases)
