"""NDCG@20 kept by SAEs beside PCA-k and adaptive PCA-k, for several k: `ndcg_kept` of the results."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks.base_models import TrainedBase
from benchmarks.fidelity import one_sae
from benchmarks.fidelity_rows import Activations, Targets
from recsae.sae.baselines import PrincipalAxes


def kept_study(
    base: TrainedBase, activations: Activations, targets: Targets, ks: Sequence[int], threads: int
) -> dict[str, Any]:
    """By k: what SAE, PCA-k and adaptive PCA-k keep, on users outside SAE training, by full ranking."""
    axes = PrincipalAxes.fit(activations.training())
    options = argparse.Namespace(width=0, epochs=0, variant="topk", threads=threads)
    found = {}
    for k in ks:
        one = one_sae(base, activations, targets, axes, k, options)
        found[str(k)] = {
            "sae": one["ndcg_kept"],
            "ci": one["ci"],
            "pca": one["pca"],
            "adaptive_pca": one["adaptive_pca"],
            "sae_minus_adaptive_pca_ci": one["diff_ci"],
            "width": one["width"],
            "fvu": one["fvu"],
            "dead": one["dead_all"],
            "sparse": one["sparse"],
        }
    return found
