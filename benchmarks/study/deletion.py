"""Attribution validated by deletion on held-out users, for the served head.

Not here: the curves and areas (`recsae.concepts.deletion`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.study.material import Material
from recsae.concepts.deletion import (
    delete_in_order,
    dot_product_score,
    evenly_chosen,
    linear_contributions,
    top_items,
)
from recsae.concepts.splits import UserPart
from recsae.sae.dot_product import ExcludedItems


def deletion_study(material: Material) -> dict[str, Any]:
    """On the newest rows of verification users (at most 1,000), consumed items left out."""
    targets, sae = material.targets, material.sae
    chosen = np.flatnonzero(material.inputs.parts[targets.user] == UserPart.VERIFICATION)
    chosen = chosen[evenly_chosen(len(chosen))]
    explained = sae.relative_error(targets.x, sae.decode(sae.encode(targets.x))) <= sae.error_p99
    rows = chosen[explained[chosen]]
    lengths = targets.offsets[rows + 1] - targets.offsets[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    consumed = targets.consumed[np.repeat(targets.offsets[rows], lengths) + within]
    score = dot_product_score(material.item_vectors, material.item_bias, ExcludedItems(offsets, consumed))
    x = targets.x[rows]
    codes = sae.encode(x)
    items = top_items(x, score)
    contributions = linear_contributions(codes, sae.w_dec, material.item_vectors, items)
    found = delete_in_order(x, codes, sae.w_dec, contributions, score, users=targets.user[rows], items=items)
    return found.scores() | {"refused_share": round(1 - len(rows) / max(1, len(chosen)), 4)}
