"""Lays the activations of one base model over those of another, so that directions of both can be compared.

A recommender trained again spans the same histories in another basis. Orthogonal Procrustes (Schönemann, 1966) finds
the rotation between the two from paired rows: the same histories read by both models. Not here: matching latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError

Floats = NDArray[np.float32]
Reals = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Alignment:
    """`rotation` float32 [d_new, d_old] takes directions of the new space to the old one, and how well it does.

    `explained` is the share of the old rows' variance that the rotated and scaled new rows reproduce: 1 when the space
    only turned, about 0 when the two have nothing in common.
    """

    rotation: Floats
    explained: float

    def turn(self, directions: Floats) -> Floats:
        """Directions [w, d_new] in the old space, float32 [w, d_old]. Lengths fall by what the old space lacks."""
        turned: Floats = directions @ self.rotation
        return turned


def align(new: Reals, old: Reals) -> Alignment:
    """The rotation that takes `new` [n, d_new] closest to `old` [n, d_old], both centred; row i of both is one history.

    With X = U S V^T the singular value decomposition of new^T old, the rotation is U V^T. Where the lengths differ it
    maps onto the shared min(d_new, d_old) dimensions. InvalidRequestError when rows are not paired, or fewer than the
    larger d: then the rotation would fit any two sets of points.
    """
    if new.ndim != 2 or old.ndim != 2 or len(new) != len(old):
        raise InvalidRequestError(
            f"paired activations must be [n, d] with one row per history in both, not {new.shape} and {old.shape}; "
            "read the same histories by both models"
        )
    if len(new) < max(new.shape[1], old.shape[1]):
        raise InvalidRequestError(
            f"{len(new)} paired rows do not determine a rotation of {max(new.shape[1], old.shape[1])} dimensions; "
            "give at least as many rows as dimensions"
        )
    centred_new = new.astype(np.float64) - new.mean(axis=0, dtype=np.float64)
    centred_old = old.astype(np.float64) - old.mean(axis=0, dtype=np.float64)
    left, strength, right = np.linalg.svd(centred_new.T @ centred_old, full_matrices=False)
    reached = float(np.square(centred_new @ left).sum()) * float(np.square(centred_old).sum())
    explained = float(strength.sum()) ** 2 / reached if reached > 0 else 0.0
    return Alignment((left @ right).astype(np.float32), min(1.0, explained))
