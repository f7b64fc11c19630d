"""Figures of a whole dictionary (docs/method.md, section 5).

Shares of all live latents, of those with enough cases, of activation mass and of score mass, and the distance to a
control dictionary (an untrained recommender's). Not here: the verdicts they count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.dictionary import ConceptArrays
from recsae.concepts.records import ConceptKind, ConceptRecord, ConceptStatus, is_verified
from recsae.significance import wilson

_CONFIDENT = 0.5


def summarise(
    concepts: Sequence[ConceptRecord],
    arrays: ConceptArrays,
    effect: NDArray[np.float32],
    swapped_passes: NDArray[np.bool_],
    control: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Plain JSON. Shares are 0 to 1; `verified` counts facet rules only, item sets are their own class.

    `effect` float32 [w] is the mean absolute change of a score per unit of a latent; `control` the summary of a control
    dictionary, against which shares are compared with a 95 % interval.
    """
    live = np.array([concept.status is not ConceptStatus.DEAD for concept in concepts])
    mass = (arrays.density * arrays.mean).astype(np.float64)
    weights = {"live": live.astype(np.float64), "mass": mass, "score_mass": mass * effect}
    classes = _classes(concepts)
    enough = live & ~classes["too_rare"]
    summary: dict[str, Any] = {
        "width": len(concepts),
        "live": int(live.sum()),
        "dead": int((~live).sum()),
        "enough_cases": int(enough.sum()),
        "swapped_labels_verified_share": _share(swapped_passes & live, weights["live"]),
    }
    for name, members in classes.items():
        summary[name] = {
            "count": int(members.sum()),
            "share_of_live": _share(members, weights["live"]),
            "share_of_enough_cases": _share(members & enough, enough.astype(np.float64)),
            "share_of_mass": _share(members, weights["mass"]),
            "share_of_score_mass": _share(members, weights["score_mass"]),
        }
    if control is not None:
        summary["trained_minus_control"] = {
            name: difference(summary[name]["count"], summary["live"], control[name]["count"], control["live"])
            for name in classes
            if name in control
        }
    return summary


def difference(count: int, total: int, control_count: int, control_total: int) -> dict[str, float]:
    """Difference of two shares with its 95 % interval by Newcombe's method (from two Wilson intervals)."""
    share, low, high = _wilson(count, total)
    other, other_low, other_high = _wilson(control_count, control_total)
    return {
        "trained": share,
        "control": other,
        "difference": share - other,
        "low": share - other - math.hypot(share - low, other_high - other),
        "high": share - other + math.hypot(high - share, other - other_low),
    }


def _classes(concepts: Sequence[ConceptRecord]) -> dict[str, NDArray[np.bool_]]:
    verified = np.array([concept.status is ConceptStatus.VERIFIED for concept in concepts])
    item_set = np.array([concept.kind is ConceptKind.ITEM_SET for concept in concepts])
    return {
        "verified": np.array([is_verified(concept) for concept in concepts]),
        "semantic": np.array([concept.kind is ConceptKind.SEMANTIC for concept in concepts]),
        "item_set": verified & item_set,
        "confident": np.array([concept.confidence >= _CONFIDENT for concept in concepts]) & ~item_set,
        "too_rare": np.array([concept.status is ConceptStatus.TOO_RARE for concept in concepts]),
    }


def _share(members: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    total = float(weights.sum())
    return float(weights[members].sum()) / total if total > 0 else 0.0


def _wilson(count: int, total: int) -> tuple[float, float, float]:
    """A share and its 95 % interval; of nothing, 0 and the whole range."""
    share = count / total if total else 0.0
    low, high = wilson(share, total)
    return share, float(low), float(high)
