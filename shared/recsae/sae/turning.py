"""Turns an SAE of one base model into the space of another: where training starts when the recommender was retrained.

With X' and X the same histories read by the new and the old model, both centred, and R the rotation between them
(`alignment`): X is about c X' R, with c the ratio of their lengths. An SAE reads X' as the old one read X when both
matrices are turned by R^T, the encoder's bias is divided by c and the decoder's bias is laid over the new mean.
Not here: finding R, training on.
"""

from __future__ import annotations

import numpy as np

from recsae.errors import InvalidRequestError
from recsae.sae.alignment import Alignment, Floats
from recsae.sae.weights import SaeWeights


def turn_weights(weights: SaeWeights, alignment: Alignment, new: Floats, old: Floats) -> SaeWeights:
    """The SAE of the old space in the new one; `new`, `old` float32 [n, d] are the rows `alignment` was found from.

    InvalidRequestError when the two spaces differ in dimension: a latent would lose part of its direction.
    """
    rotation = alignment.rotation.astype(np.float64)
    if rotation.shape[0] != rotation.shape[1] or len(rotation) != weights.d:
        raise InvalidRequestError(
            f"an SAE of {weights.d} dimensions cannot be turned by a rotation {alignment.rotation.shape}; start cold"
        )
    new_mean, old_mean = new.mean(axis=0, dtype=np.float64), old.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(new - new_mean))
    scale = float(np.linalg.norm(old - old_mean)) / length if length > 0 else 1.0
    w_dec = weights.w_dec @ rotation.T
    # The rotation is kept in float32: its error is not to add up over refreshes.
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    return SaeWeights(
        w_enc=(weights.w_enc @ rotation.T).astype(np.float32),
        b_enc=(weights.b_enc / scale).astype(np.float32),
        w_dec=w_dec.astype(np.float32),
        b_dec=(new_mean + (weights.b_dec - old_mean) @ rotation.T / scale).astype(np.float32),
        mean=new_mean.astype(np.float32),
    )
