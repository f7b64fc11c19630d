"""Latents that came apart: one latent of an SAE whose firings several latents of another SAE now share.

The same function finds splits (a whole in the old SAE, its parts in the new one) and merges (the other way round).
Not here: latents that are the same on both sides (`matching`). docs/method.md, section 8.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from recsae.sae.latent_pairs import Ints, LatentPairs, Latents

# A part fires mostly where the whole fires; who covers this much of a latent's firings is no part but the latent.
INSIDE = 0.5
WHOLE = 0.75


def wholes_of(parts: Latents, wholes: Latents, pairs: LatentPairs) -> Ints:
    """For each latent of `parts` the latent of `wholes` that came apart into it and others, int64 [w]; else -1.

    `pairs.new` counts in `parts` and `pairs.old` in `wholes`. A latent came apart when no single latent covers three
    quarters of its firings, and at least two together do that each fire inside it (on half of their firings or more).
    A latent that shares three quarters of the firings of both with one partner is that partner's equal, not a part.
    """
    covered = pairs.together / np.maximum(wholes.firings[pairs.old], 1)
    inside = pairs.together / np.maximum(parts.firings[pairs.new], 1)
    most = np.zeros(wholes.width)
    np.maximum.at(most, pairs.old, covered)
    has_equal = np.zeros(parts.width, bool)
    has_equal[pairs.new[(covered >= WHOLE) & (inside >= WHOLE)]] = True
    pairs = pairs.take((inside >= INSIDE) & (most[pairs.old] < WHOLE) & ~has_equal[pairs.new])
    number = np.bincount(pairs.old, minlength=wholes.width)
    pairs = pairs.take(number[pairs.old] >= 2)
    pairs = pairs.take((_covered_together(parts, wholes, pairs) >= WHOLE)[pairs.old])
    result = np.full(parts.width, -1, np.int64)
    weakest_first = np.argsort(pairs.score, kind="stable")
    result[pairs.new[weakest_first]] = pairs.old[weakest_first]
    # A part of two wholes goes to the closer one; a whole that is left with a single part did not come apart.
    left = np.bincount(result[result >= 0], minlength=wholes.width)
    result[(result >= 0) & (left[result] < 2)] = -1
    return result


def _covered_together(parts: Latents, wholes: Latents, pairs: LatentPairs) -> np.ndarray:
    """Share of each whole's firings on which at least one of its parts fires, float64 [w]."""
    belongs = sparse.csc_matrix(
        (np.ones(len(pairs), np.float32), (pairs.new, pairs.old)), shape=(parts.width, wholes.width)
    )
    any_part = parts.values.astype(bool).astype(np.float32) @ belongs
    both = any_part.astype(bool).multiply(wholes.values.astype(bool))
    share: np.ndarray = np.asarray(both.sum(axis=0)).ravel() / np.maximum(wholes.firings, 1)
    return share
