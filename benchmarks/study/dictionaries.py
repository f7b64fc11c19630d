"""What a dictionary is worth, beside what passes without training or without an SAE.

`verified` and `described_ndcg` of the results; coverage; the same describer with metadata alone, so that it is seen how
much groups of items consumed together add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.controls import described_code, principal_axes, raw_neurons, untrained_material
from benchmarks.study.material import Material
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.records import ConceptKind, ConceptRecord, ConceptStatus
from recsae.concepts.summary import difference
from recsae.datasets.facets import FacetSpec
from recsae.significance import wilson

COVERED = (0.6, 0.7, 0.8, 0.9)
_BINS = np.linspace(0, 1, 11)
METADATA_ONLY = FacetSpec(neighbourhoods=())


def dictionary_figures(material: Material, cache: Path, threads: int) -> dict[str, Any]:
    """The dictionary of `material` and its controls: one dict per code, and what is trained minus untrained."""
    other = untrained_material(material, cache, threads)
    found = {
        "sae": figures(material.dictionary),
        "untrained": figures(other.dictionary),
        "raw_neurons": figures(described_code(material, raw_neurons(material))),
        "principal_axes": figures(described_code(material, principal_axes(material))),
        "metadata_only": figures(replace(material, facets=METADATA_ONLY).dictionary),
        "untrained_metadata_only": figures(replace(other, facets=METADATA_ONLY).dictionary),
    }
    return found | {
        "trained_minus_untrained": {
            kind: difference(
                found["sae"][kind]["count"],
                found["sae"]["live"],
                found["untrained"][kind]["count"],
                found["untrained"]["live"],
            )
            for kind in ("verified", "semantic", "confident")
        }
    }


def figures(dictionary: Dictionary) -> dict[str, Any]:
    """Counts, shares of live latents and of activation mass, distributions and controls of one dictionary."""
    summary = dictionary.summary
    live = [concept for concept in dictionary.concepts if concept.status is not ConceptStatus.DEAD]
    mass = (dictionary.arrays.density * dictionary.arrays.mean).astype(np.float64)
    found: dict[str, Any] = {
        name: summary[name]
        for name in ("width", "live", "enough_cases", "swapped_labels_verified_share", "described_ndcg")
        if name in summary
    }
    for name in ("verified", "semantic", "item_set", "confident", "too_rare"):
        share, count = summary[name]["share_of_live"], summary[name]["count"]
        low, high = (float(end) for end in wilson(share, summary["live"]))
        found[name] = {
            "count": count,
            "share": round(share, 4),
            "ci": [round(low, 4), round(high, 4)],
            "mass": round(summary[name]["share_of_mass"], 4),
        }
    found["confidence"] = _histogram([concept.confidence for concept in live])
    found["control_confidence"] = _histogram([concept.control_confidence for concept in live])
    found["coverage"] = coverage(live, mass)
    found["controls"] = {
        "always_true_f1": _mean(live, "always_true_f1"),
        "popularity_f1": _mean(live, "popularity_f1"),
        "swap_f1": _mean(live, "swap_f1"),
        "f1": round(float(np.mean([concept.f1.value for concept in live])), 4) if live else 0.0,
    }
    return found


def coverage(live: Sequence[ConceptRecord], mass: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Share of live latents, and of mass, whose rule's balanced F1 reaches a threshold; item sets left out."""
    total = sum(float(mass[concept.latent]) for concept in live) or 1.0
    found = {}
    for threshold in COVERED:
        reached = [c for c in live if c.balanced_f1.value >= threshold and c.kind is not ConceptKind.ITEM_SET]
        found[f"{threshold:g}"] = {
            "share": round(len(reached) / max(1, len(live)), 4),
            "mass": round(sum(float(mass[concept.latent]) for concept in reached) / total, 4),
        }
    return found


def headline(found: Mapping[str, Any]) -> dict[str, Any]:
    """`described_ndcg`, `verified` and `confidence_ge_05_share` of the results file."""
    sae, control = found["sae"], found["untrained"]
    described = sae["described_ndcg"]
    return {
        "described_ndcg": {side: described[side]["value"] for side in ("described", "sae", "permuted", "linear")}
        | {"score": described["score"]["value"], "score_ci": [described["score"]["low"], described["score"]["high"]]}
        | {"linear_score": described["linear_score"]["value"], "bits": described["bits"]},
        "verified": {
            "live": sae["live"],
            "live_share": sae["verified"]["share"],
            "live_share_ci": sae["verified"]["ci"],
            "enough_cases_share": round(sae["verified"]["count"] / max(1, sae["enough_cases"]), 4),
            "mass_share": sae["verified"]["mass"],
            "untrained_share": control["verified"]["share"],
            "swap_share": round(sae["swapped_labels_verified_share"], 4),
            "semantic_share": sae["semantic"]["share"],
            "semantic_share_ci": sae["semantic"]["ci"],
        },
        "confidence_ge_05_share": sae["confident"]["share"],
    }


def _histogram(values: Sequence[float]) -> list[int]:
    return [int(count) for count in np.histogram(values, _BINS)[0]]


def _mean(live: Sequence[ConceptRecord], name: str) -> float:
    values = [concept.scores[name] for concept in live if name in concept.scores]
    return round(float(np.mean(values)), 4) if values else 0.0
