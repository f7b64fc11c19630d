"""Ids: kept where a concept is found again, never given twice, never taken over by another concept."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.concepts.matching import LEAST_COSINE, Previous, concept_ids
from recsae.sae.assignment import assign_directions


def unit_rows(seed: int, rows: int, d: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=(rows, d)).astype(np.float32)
    unit: NDArray[np.float32] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def test_a_permuted_and_disturbed_decoder_keeps_its_ids() -> None:
    old = unit_rows(0, 200, 64)
    ids = concept_ids("m", "a" * 16, old)
    order = np.random.default_rng(1).permutation(200)
    new = old[order] + 0.02 * unit_rows(2, 200, 64)
    assert concept_ids("m", "b" * 16, new, Previous(ids, old)) == tuple(ids[at] for at in order)


def test_an_unrelated_dictionary_keeps_next_to_no_id() -> None:
    """Random directions in 64 dimensions have cosine >= .7 with probability < 1e-9 a pair."""
    assert (assign_directions(unit_rows(0, 300, 64), unit_rows(1, 300, 64), LEAST_COSINE) >= 0).sum() == 0


@pytest.mark.parametrize("seed", range(6))
def test_the_matching_maximises_summed_cosine_over_admissible_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centre = unit_rows(seed, 2, 6)
    new, old = (centre[rng.integers(0, 2, 5)] + 0.35 * unit_rows(seed + at, 5, 6) for at in (10, 20))
    unit_new, unit_old = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (new, old))
    cosine = unit_new @ unit_old.T
    gain = np.where(cosine >= 0.7, cosine, 0)
    best = max(sum(gain[at, to] for at, to in enumerate(order)) for order in permutations(range(5)))
    found = assign_directions(new, old, LEAST_COSINE)
    assert sum(gain[at, to] for at, to in enumerate(found) if to >= 0) == pytest.approx(best, rel=1e-5)
    kept = found[found >= 0]
    assert len(set(kept.tolist())) == len(kept)
    assert all(cosine[at, to] >= 0.7 for at, to in enumerate(found) if to >= 0)


def test_ids_are_unique_stable_and_well_formed() -> None:
    rows = unit_rows(0, 5000, 8)
    ids = concept_ids("m", "a" * 16, rows)
    assert len(set(ids)) == 5000
    assert ids == concept_ids("m", "a" * 16, rows)
    assert all(len(each) == 10 and each.startswith("c-") for each in ids)
    assert not set(ids) & set(concept_ids("m", "b" * 16, rows)[:100])


def test_a_new_concept_never_takes_a_lost_one_s_id() -> None:
    old = unit_rows(0, 50, 64)
    would_be = concept_ids("m", "b" * 16, unit_rows(1, 50, 64))
    ids = concept_ids("m", "b" * 16, unit_rows(1, 50, 64), Previous(would_be, old))
    assert not set(ids) & set(would_be)


def test_another_dimension_matches_nothing() -> None:
    old = unit_rows(0, 10, 8)
    previous = Previous(concept_ids("m", "a" * 16, old), old)
    assert concept_ids("m", "b" * 16, unit_rows(0, 10, 16), previous) == concept_ids(
        "m", "b" * 16, unit_rows(0, 10, 16)
    )


def test_dead_decoder_rows_match_nothing() -> None:
    rows = np.zeros((3, 4), np.float32)
    assert assign_directions(rows, rows, LEAST_COSINE).tolist() == [-1, -1, -1]
