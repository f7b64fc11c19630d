"""Several activation rows of a subject (its interests, its candidates) as one: a concept is as strong as at its best.

Pure arrays. Not here: which rows a subject has, and what is done with its concepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.sae.codes import Codes

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PooledFiring:
    """One latent of a subject: its largest `value`, the `strength` there, and its value in each row it fires `at`."""

    latent: int
    value: float
    strength: float
    at: Mapping[int, float]


@dataclass(frozen=True)
class PooledRows:
    """One row per subject: `latents` int64 [m, s] and `strengths` float32 [m, s], 0 = silent; `subject` int64 [m]."""

    latents: Ints
    strengths: Floats
    subject: Ints


def pooled_firings(codes: Codes, strengths: Floats, used: NDArray[np.bool_]) -> tuple[PooledFiring, ...]:
    """Latents that fire in some `used` row [n] of one subject, strongest first; `strengths` float32 [n, k] as in codes.

    Latents of like strength come in the order of the codes.
    """
    row, place = np.nonzero(codes.fired & used[:, None])
    latent, value, strength = codes.indices[row, place], codes.values[row, place], strengths[row, place]
    at: dict[int, dict[int, float]] = {}
    for one, where, how_much in zip(latent.tolist(), row.tolist(), value.tolist(), strict=True):
        at.setdefault(one, {})[where] = how_much
    most: dict[int, float] = {}
    for one, how_strong in zip(latent.tolist(), strength.tolist(), strict=True):
        most[one] = max(most.get(one, 0.0), how_strong)
    found = [PooledFiring(one, max(values.values()), most[one], values) for one, values in at.items()]
    return tuple(sorted(found, key=lambda firing: -firing.strength))


def pool_rows(latents: NDArray[np.integer], strengths: Floats, subject: Ints) -> PooledRows:
    """Rows [n, k] of `subject` [n] as one row each, subjects ascending; the largest strength of a latent counts."""
    subjects, owner = np.unique(subject, return_inverse=True)
    row, place = np.nonzero(strengths > 0)
    who, latent, strength = owner[row], np.asarray(latents[row, place], np.int64), strengths[row, place]
    order = np.lexsort((-strength, latent, who))
    who, latent, strength = who[order], latent[order], strength[order]
    first = np.ones(len(who), np.bool_)
    first[1:] = (who[1:] != who[:-1]) | (latent[1:] != latent[:-1])
    who, latent, strength = who[first], latent[first], strength[first]
    count = np.bincount(who, minlength=len(subjects))
    slot = np.arange(len(who)) - np.repeat(np.cumsum(count) - count, count)
    shape = (len(subjects), int(count.max(initial=0)))
    pooled = PooledRows(np.zeros(shape, np.int64), np.zeros(shape, np.float32), subjects)
    pooled.latents[who, slot] = latent
    pooled.strengths[who, slot] = strength
    return pooled


def unexplained_share(x: Floats, x_hat: Floats, mean: Floats) -> float:
    """Sum of |x - x_hat|^2 over that of |x - mean|^2, of rows [n, d] of one subject; infinite when all are the mean."""
    error = float(np.square(x.astype(np.float64) - x_hat).sum())
    spread = float(np.square(x.astype(np.float64) - mean).sum())
    if error == 0:
        return 0.0
    return error / spread if spread > 0 else float("inf")
