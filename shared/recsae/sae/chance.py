"""Dictionaries that have nothing to do with an SAE but its shape: what is found in them is found by chance.

Every score of matching stands beside this one. Not here: matching itself (`matching`, `stability`).
"""

from __future__ import annotations

import numpy as np

from recsae.sae.alignment import Alignment
from recsae.sae.latents import Latents
from recsae.sae.matching import match_latents


def unrelated(latents: Latents, seed: int) -> Latents:
    """The same amount of everything and none of its meaning: what matches it, matches by chance.

    Decoder rows are drawn at random with the second moments of the real ones, and probe rows are shuffled: how often
    and how strongly latents fire, and which fire together, stays.
    """
    rng = np.random.default_rng(seed)
    w_dec = latents.w_dec.astype(np.float64)
    spread, directions = np.linalg.eigh(w_dec.T @ w_dec / max(1, len(w_dec)))
    drawn = rng.normal(size=w_dec.shape) * np.sqrt(np.maximum(spread, 0)) @ directions.T
    drawn /= np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    order = rng.permutation(len(latents.codes))
    return Latents(drawn.astype(np.float32), latents.codes.take(order), latents.items)


def false_match_rate(new: Latents, old: Latents, alignment: Alignment | None = None, seed: int = 0) -> float:
    """Share of `new`'s latents that are matched one to one with an `unrelated` dictionary of `old`'s shape.

    Of those that fire on enough probe rows to be judged; 0 when none does.
    """
    matching = match_latents(new, unrelated(old, seed), alignment)
    judged = int((~new.silent).sum())
    return float(matching.new.found.sum()) / judged if judged else 0.0
