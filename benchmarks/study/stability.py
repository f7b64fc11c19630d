"""Which concepts SAEs of other seeds find again, by count and by mass, beside chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.material import Material, trained_sae
from recsae.concepts.records import is_verified
from recsae.concepts.splits import UserPart
from recsae.sae.latents import Latents
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.stability import StableShare, seed_stability

_SEEDS = (1, 2)


def stability_study(material: Material, cache: Path, threads: int) -> dict[str, Any]:
    """Of the SAE's latents, and of those verified, in SAEs of two other seeds; rows of construction users."""
    x = material.inputs.sums.samples[UserPart.CONSTRUCTION].x
    k, width = material.sae.k, material.sae.width
    folders = [
        trained_sae(material.base, material.activations, cache, k=k, width=width, seed=seed, threads=threads)
        for seed in _SEEDS
    ]
    saes = [material.sae, *(SparseAutoencoder.load(folder, folder.name) for folder in folders)]
    first, *others = [Latents(sae.w_dec, sae.encode(x)) for sae in saes]
    found = seed_stability(first, others)
    verified = np.array([is_verified(one) for one in material.dictionary.concepts])
    return {
        "seeds": 1 + len(_SEEDS),
        "all": _shares(found.share()),
        "verified": _shares(found.share(verified)),
        "by_chance": _shares(found.chance()),
        "by_chance_per_seed": round(found.chance_per_seed(), 4),
    }


def _shares(share: StableShare) -> dict[str, float]:
    return {"count": round(share.count, 4), "mass": round(share.mass, 4)}
