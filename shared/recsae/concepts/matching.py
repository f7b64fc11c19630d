"""Stable concept ids: a new dictionary keeps the ids of the concepts it finds again.

For the same base model (same dimension) a latent is found again where its decoder direction is: a one-to-one matching
that maximises summed cosine over pairs of at least .7. Not here: Procrustes alignment for another base model, firing
fingerprints, and what became of lost concepts (split, merged).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

LEAST_COSINE = 0.7
_ROWS_AT_ONCE = 1024
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
    matched = np.full(width, -1)
    if previous is not None and previous.w_dec.shape[1] == w_dec.shape[1]:
        matched = match(w_dec, previous.w_dec)
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


def match(new: NDArray[np.float32], old: NDArray[np.float32], least: float = LEAST_COSINE) -> NDArray[np.int64]:
    """For each row of `new` [w, d] the matched row of `old` [w', d], int64 [w]; -1 where no pair reaches `least`.

    Pairs below `least` are never matched, so the problem falls apart into connected components of admissible pairs,
    which are small; each is solved exactly (Hungarian).
    """
    cosines = _admissible(_unit(new), _unit(old), least)
    result = np.full(len(new), -1)
    graph = sparse.block_array([[None, cosines], [cosines.T, None]])
    count, component = connected_components(graph, directed=False)
    pairs = cosines.tocoo()
    order = np.argsort(component[pairs.row], kind="stable")
    rows, columns, values = pairs.row[order], pairs.col[order], pairs.data[order]
    bounds = np.searchsorted(component[rows], np.arange(count + 1))
    for start, stop in pairwise(bounds.tolist()):
        if stop - start == 1:
            result[rows[start]] = columns[start]
        elif stop > start:
            _solve(rows[start:stop], columns[start:stop], values[start:stop], result)
    return result


def _solve(
    rows: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[np.float64], result: NDArray[np.int64]
) -> None:
    mine, row = np.unique(rows, return_inverse=True)
    theirs, column = np.unique(columns, return_inverse=True)
    table = np.zeros((len(mine), len(theirs)))
    table[row, column] = values
    for left, right in zip(*linear_sum_assignment(-table), strict=True):
        if table[left, right] > 0:
            result[mine[left]] = theirs[right]


def _admissible(new: NDArray[np.float32], old: NDArray[np.float32], least: float) -> sparse.csr_matrix:
    blocks = []
    for at in range(0, len(new), _ROWS_AT_ONCE):
        cosine = new[at : at + _ROWS_AT_ONCE] @ old.T
        blocks.append(sparse.csr_matrix(np.where(cosine >= least, cosine, 0)))
    return sparse.vstack(blocks, format="csr")


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit


def _new_id(model: str, sae_version: str, latent: int, taken: set[str]) -> str:
    attempt = 0
    while True:
        digest = hashlib.sha256(f"{model}\0{sae_version}\0{latent}\0{attempt}".encode()).hexdigest()
        if f"c-{digest[:_HEX_DIGITS]}" not in taken:
            return f"c-{digest[:_HEX_DIGITS]}"
        attempt += 1
