"""Stable concept ids: a new dictionary keeps the ids of the concepts it finds again.

For the same base model (same dimension) a latent is found again where its decoder direction is: a one-to-one matching
that maximises summed cosine over pairs of at least .7. Not here: the matching itself (`recsae.sae.assignment`), and
what became of the others, on other base models too (`recsae.sae.matching`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.sae.assignment import assign_directions

LEAST_COSINE = 0.7
_HEX_DIGITS = 8


@dataclass(frozen=True)
class Previous:
    """What ids are kept from: ids of all latents of the previous dictionary and its SAE's `w_dec` [w', d]."""

    ids: tuple[str, ...]
    w_dec: NDArray[np.float32]


def concept_ids(
    model: str, sae_version: str, w_dec: NDArray[np.float32], previous: Previous | None = None
) -> tuple[str, ...]:
    """A unique id per latent, "c-" and 8 hex digits: kept where matched, else from model, SAE version and latent."""
    width = len(w_dec)
    matched = np.full(width, -1, np.int64)
    if previous is not None and previous.w_dec.shape[1] == w_dec.shape[1]:
        matched = assign_directions(w_dec, previous.w_dec, LEAST_COSINE)
    # A new concept never takes an id that once meant another, so the previous ones are all taken.
    taken = set(previous.ids) if previous is not None else set()
    ids = []
    for latent in range(width):
        if matched[latent] >= 0 and previous is not None:
            ids.append(previous.ids[matched[latent]])
            continue
        ids.append(_new_id(model, sae_version, latent, taken))
        taken.add(ids[-1])
    return tuple(ids)


def _new_id(model: str, sae_version: str, latent: int, taken: set[str]) -> str:
    attempt = 0
    while True:
        digest = hashlib.sha256(f"{model}\0{sae_version}\0{latent}\0{attempt}".encode()).hexdigest()
        if f"c-{digest[:_HEX_DIGITS]}" not in taken:
            return f"c-{digest[:_HEX_DIGITS]}"
        attempt += 1
