"""Latents that came apart: one latent of an SAE whose firings several latents of another SAE now share.

The same function finds splits (a whole in the old SAE, its parts in the new one) and merges (the other way round).
Not here: latents that are the same on both sides (`matching`). docs/method.md, section 8.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from recsae.sae.latent_pairs import LatentPairs
from recsae.sae.latents import Doubles, Ints, Latents

# A part fires mostly where the whole fires; who covers this much of a latent's activation is the latent, not a part.
INSIDE = 0.5
WHOLE = 0.75
# Two equal halves of a latent have a firing correlation of .71 with it; at .8 one explains 64 % of the other.
EQUAL = 0.8


def wholes_of(parts: Latents, wholes: Latents, pairs: LatentPairs) -> Ints:
    """For each latent of `parts` the latent of `wholes` that came apart into it and others, int64 [w]; else -1.

    `pairs.new` counts in `parts` and `pairs.old` in `wholes`. A latent came apart when no single latent covers three
    quarters of its activation, and at least two together do that each lie inside it (with half of their activation or
    more). Latents with an equal on the other side, at a firing correlation of .8, are neither parts nor wholes.
    Activation is counted, not rows: whether a latent fires weakly or not at all turns on other latents in TopK.
    """
    equal = pairs.correlation >= EQUAL
    whole, part = np.ones(wholes.width, bool), np.ones(parts.width, bool)
    whole[pairs.old[equal | (pairs.old_shared >= WHOLE)]] = False
    part[pairs.new[equal]] = False
    pairs = pairs.take((pairs.new_shared >= INSIDE) & whole[pairs.old] & part[pairs.new])
    # One part alone cannot reach this: a latent that one covers is no whole.
    pairs = pairs.take((_covered_together(parts, wholes, pairs) >= WHOLE)[pairs.old])
    result = np.full(parts.width, -1, np.int64)
    weakest_first = np.argsort(pairs.score, kind="stable")
    result[pairs.new[weakest_first]] = pairs.old[weakest_first]
    # A part of two wholes goes to the closer one; a whole that is left with a single part did not come apart.
    left = np.bincount(result[result >= 0], minlength=wholes.width)
    result[(result >= 0) & (left[result] < 2)] = -1
    return result


def _covered_together(parts: Latents, wholes: Latents, pairs: LatentPairs) -> Doubles:
    """Share of each whole's activation on rows where at least one of its parts fires, float64 [w]."""
    belongs = sparse.csc_matrix(
        (np.ones(len(pairs), np.float32), (pairs.new, pairs.old)), shape=(parts.width, wholes.width)
    )
    any_part = parts.values.astype(bool).astype(np.float32) @ belongs
    both = np.asarray(wholes.values.multiply(any_part.astype(bool)).sum(axis=0)).ravel()
    total = np.asarray(wholes.values.sum(axis=0)).ravel()
    share: Doubles = np.divide(both, total, out=np.zeros_like(total), where=total > 0)
    return share
