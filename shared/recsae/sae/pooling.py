"""What a subject of a multi-interest model shows: each vector is encoded, and a latent counts where it is largest.

Concepts are of subjects: "likes horror" holds when one interest is about horror. So the codes of a subject's interests
are pooled by their maximum. A reconstruction of pooled codes is not defined: an SAE is judged on single vectors
(`flat_rows`). numpy only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.codes import Codes
from recsae.sae.runtime import SparseAutoencoder

_SCRATCH_CELLS = 1 << 22

Floats = NDArray[np.float32]
Scores = Callable[[Floats], Floats]


class PooledEncoder:
    """An SAE that reads subjects of several interests each, [n, interests * d]; the same as the SAE where it is one."""

    def __init__(self, sae: SparseAutoencoder, interests: int) -> None:
        """`interests` vectors of `sae.d` numbers make a subject."""
        self._sae, self.interests = sae, interests
        self.width, self.version = sae.width, sae.version
        self.w_dec: Floats = sae.w_dec

    def encode(self, x: Floats) -> Codes:
        """Pooled codes of subjects `x` float32 [n, interests * d]; InvalidRequestError on another shape."""
        return pooled(self._sae.encode(single_vectors(x, self._sae.d, self.interests)), self.interests, self.width)


def subject_encoder(sae: SparseAutoencoder, interests: int) -> SparseAutoencoder | PooledEncoder:
    """What encodes subjects of a model with so many interests: the SAE itself where there is one."""
    return sae if interests == 1 else PooledEncoder(sae, interests)


def pooled_scores(scores: Scores, d: int, interests: int) -> Scores:
    """`scores` [n, width] of single vectors [n, d], as scores of subjects: the largest over their interests."""

    def of_subjects(x: Floats) -> Floats:
        found = scores(single_vectors(x, d, interests))
        return np.asarray(found.reshape(len(x), interests, -1).max(axis=1), np.float32)

    return scores if interests == 1 else of_subjects


def single_vectors(x: Floats, d: int, interests: int) -> Floats:
    """Subjects [n, interests * d] as their vectors [n * interests, d]; InvalidRequestError on another length."""
    if x.ndim != 2 or x.shape[1] != interests * d:
        raise InvalidRequestError(f"expected activations [n, {interests} x {d}], got {list(x.shape)}")
    return np.ascontiguousarray(x).reshape(-1, d)


def pooled(codes: Codes, interests: int, width: int) -> Codes:
    """Codes of n x `interests` vectors as those of n subjects: each latent once, at its largest value, values falling.

    Codes [n, m], m = interests x k but never more than `width`. What a latent named twice leaves free names a latent
    that does not fire, as in any codes. Where there is one interest the codes come back as they are.
    """
    if interests == 1:
        return codes
    if len(codes) % interests:
        raise InvalidRequestError(f"{len(codes)} codes are of no whole number of subjects with {interests} interests")
    slots = interests * codes.k
    indices, values = codes.indices.reshape(-1, slots), codes.values.reshape(-1, slots)
    step = max(1, _SCRATCH_CELLS // max(1, slots * slots))
    parts = [_pooled(indices[at : at + step], values[at : at + step], width) for at in range(0, len(indices), step)]
    if not parts:
        nothing = np.zeros((0, min(slots, width)))
        return Codes(nothing.astype(np.int32), nothing.astype(np.float32))
    return Codes(np.concatenate([index for index, _ in parts]), np.concatenate([value for _, value in parts]))


def _pooled(indices: NDArray[np.int32], values: Floats, width: int) -> tuple[NDArray[np.int32], Floats]:
    """Both [n, min(m, width)] of one block, with scratch of n x m x m."""
    slots = indices.shape[1]
    # By latent, its largest value first, so that what repeats a latent comes behind the entry that is kept.
    order = np.lexsort((-values, indices), axis=1)
    latents = np.take_along_axis(indices, order, axis=1)
    repeated = np.zeros(latents.shape, bool)
    repeated[:, 1:] = latents[:, 1:] == latents[:, :-1]
    free = _unnamed(latents, repeated, width)
    again = np.zeros(latents.shape, bool)
    np.put_along_axis(again, order, repeated, axis=1)
    number = np.zeros(latents.shape, np.int64)
    np.put_along_axis(number, order, np.cumsum(repeated, axis=1) - 1, axis=1)
    filler = np.take_along_axis(free, np.minimum(np.maximum(number, 0), slots - 1), axis=1)
    kept_values = np.where(again, np.float32(0), values)
    kept_indices = np.where(again, filler, indices).astype(np.int32)
    # Fillers go last, by latent: of more places than latents, those are cut off that no latent is left for.
    falling = np.lexsort((np.where(again, 1 + filler, 0), -kept_values), axis=1)[:, : min(slots, width)]
    return np.take_along_axis(kept_indices, falling, axis=1), np.take_along_axis(kept_values, falling, axis=1)


def _unnamed(latents: NDArray[np.int32], repeated: NDArray[np.bool_], width: int) -> NDArray[np.int64]:
    """The smallest latents that each row does not name, int64 [n, m]; `latents` are sorted, those `repeated` not new.

    With a_0 < a_1 < ... what is named, a_i - i unnamed latents lie below a_i: the j-th unnamed one (from 0) is j + the
    number of a_i with a_i - i <= j.
    """
    below = latents - (np.cumsum(~repeated, axis=1) - 1)
    below = np.where(repeated, width, below)
    places = np.arange(latents.shape[1])
    return np.asarray(places + (below[:, None, :] <= places[:, None]).sum(axis=2), np.int64)
