"""Directions are assigned one to one, by the largest sum of cosines over pairs that are close enough."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.sae.assignment import assign_directions

LEAST = 0.7


def unit_rows(seed: int, rows: int, d: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=(rows, d)).astype(np.float32)
    unit: NDArray[np.float32] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def test_an_unrelated_dictionary_matches_next_to_nothing() -> None:
    """Random directions in 64 dimensions have cosine >= .7 with probability < 1e-9 a pair."""
    assert (assign_directions(unit_rows(0, 300, 64), unit_rows(1, 300, 64), LEAST) >= 0).sum() == 0


@pytest.mark.parametrize("seed", range(6))
def test_the_matching_maximises_summed_cosine_over_admissible_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centre = unit_rows(seed, 2, 6)
    new, old = (centre[rng.integers(0, 2, 5)] + 0.35 * unit_rows(seed + at, 5, 6) for at in (10, 20))
    unit_new, unit_old = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (new, old))
    cosine = unit_new @ unit_old.T
    gain = np.where(cosine >= LEAST, cosine, 0)
    best = max(sum(gain[at, to] for at, to in enumerate(order)) for order in permutations(range(5)))
    found = assign_directions(new, old, LEAST)
    assert sum(gain[at, to] for at, to in enumerate(found) if to >= 0) == pytest.approx(best, rel=1e-5)
    kept = found[found >= 0]
    assert len(set(kept.tolist())) == len(kept)
    assert all(cosine[at, to] >= LEAST for at, to in enumerate(found) if to >= 0)


def test_dead_decoder_rows_match_nothing() -> None:
    rows = np.zeros((3, 4), np.float32)
    assert assign_directions(rows, rows, LEAST).tolist() == [-1, -1, -1]
