"""Latents that push the activation in like directions, whether or not they fire together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.firings import CoFiring

# 256 x width float32 of cosines at a time: 1 MB at width 1,024.
_LATENTS_AT_ONCE = 256


def decoder_neighbours(w_dec: NDArray[np.float32], live: NDArray[np.bool_], nearest: int = 5) -> CoFiring:
    """The live latents nearest to each by cosine of decoder rows `w_dec` [w, d]; `live` [w]. Dead ones have none."""
    width = len(w_dec)
    nearest = min(nearest, max(0, width - 1))
    rows = w_dec / np.maximum(np.linalg.norm(w_dec, axis=1, keepdims=True), 1e-12)
    latents = np.full((width, nearest), -1, np.int32)
    cosines = np.zeros((width, nearest), np.float32)
    others = np.flatnonzero(live)
    kept = min(nearest, max(0, len(others) - 1))
    if not kept:
        return CoFiring(latents, cosines)
    for at in range(0, len(others), _LATENTS_AT_ONCE):
        mine = others[at : at + _LATENTS_AT_ONCE]
        cosine = rows[mine] @ rows[others].T
        cosine[np.arange(len(mine)), np.arange(at, at + len(mine))] = -np.inf
        best = np.argpartition(-cosine, kept - 1, axis=1)[:, :kept]
        found = np.take_along_axis(cosine, best, axis=1)
        order = np.lexsort((best, -found), axis=1)
        latents[mine, :kept] = others[np.take_along_axis(best, order, axis=1)]
        cosines[mine, :kept] = np.take_along_axis(found, order, axis=1)
    return CoFiring(latents, cosines)
