"""Handles: weights that follow their objective's slope, what they do on users they were not found on, their file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.causal.board import Head
from recsae.concepts.causal.directions import crossing, try_directions
from recsae.concepts.causal.handles import HandleFinder, HandlePanels, find_handles, handle_facets, promoters
from recsae.concepts.causal.panel import Panel
from recsae.concepts.causal.weights import FacetObjective
from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.handles import MOST_LATENTS, Handle, load_handles
from recsae.concepts.records import ConceptRecord, ConceptStatus, FacetLift
from recsae.datasets.facets import FacetTable

D, ITEMS, USERS, WIDTH = 16, 200, 700, 24
HORROR = "genre=Horror"


def panel(seed: int, vectors: NDArray[np.float32]) -> Panel:
    """Users who mostly choose what scores well."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(USERS, D)).astype(np.float32)
    scores = x @ vectors[1:].T
    target = 1 + np.argmax(scores + random.gumbel(size=scores.shape), axis=1)
    nothing = np.zeros(0, np.int64)
    return Panel(x, np.arange(USERS), np.ones(USERS, bool), target, np.zeros(USERS + 1, np.int64), nothing, "f" * 16)


@pytest.fixture(scope="module")
def world() -> tuple[HandleFinder, FacetTable, Dictionary]:
    """A genre lies along dimensions 0 and 1; latents 0 to 4 promote it and each spoils something else as well."""
    random = np.random.default_rng(0)
    genre = np.arange(1, ITEMS + 1) % 5
    vectors = random.normal(size=(ITEMS + 1, D)).astype(np.float32)
    vectors[:, :2] *= 0.2
    vectors[0] = 0
    vectors[1:][genre == 0, :2] += 0.8
    member = sparse.csr_matrix(np.concatenate([np.zeros((1, 5)), np.eye(5)[genre]]).astype(np.float32))
    names = (HORROR, "genre=War", "genre=Drama", "title=the", "popularity=band 1 of 4")
    facets = FacetTable(names, ("genre", "genre", "genre", "title", "popularity"), member)
    w_dec = random.normal(size=(WIDTH, D)).astype(np.float32)
    w_dec[:5, :2] = 1.0
    w_dec[:5, 2:] *= 0.8
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    concepts = tuple(
        ConceptRecord(
            f"c-{latent}",
            latent,
            status=ConceptStatus.UNVERIFIED,
            output_facets=(FacetLift(HORROR, 3.0, 1.0 + latent / 10),) if latent < 5 else (),
        )
        for latent in range(WIDTH)
    )
    arrays = ConceptArrays(*(np.full(WIDTH, value, np.float32) for value in (0.5, 2.0, 3.0, 0.6, 0.1)))
    dictionary = Dictionary("", "m", "s", concepts, arrays, {})
    panels = HandlePanels(*(panel(seed, vectors) for seed in (1, 2, 3)))
    return HandleFinder(panels, Head(vectors), facets, w_dec, dictionary), facets, dictionary


@pytest.mark.parametrize("raises", [True, False])
def test_the_slope_of_the_objective_is_that_of_its_value(raises: bool) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(ITEMS + 1, D)).astype(np.float32)
    member = np.arange(ITEMS + 1) % 3 == 1
    objective = FacetObjective(panel(1, vectors), Head(vectors), member, raises=raises)
    effects = (random.normal(size=(4, D)) @ vectors.T).astype(np.float32)
    at = random.normal(size=4) * 0.1
    _, slope = objective(at, effects, 3.0)
    for one, step in enumerate(np.eye(4) * 1e-2):
        ahead, behind = (objective(at + way * step, effects, 3.0)[0] for way in (1, -1))
        assert slope[one] == pytest.approx((ahead - behind) / 2e-2, rel=0.02, abs=2e-3)


def test_a_handle_gains_more_at_an_equal_loss_than_its_concepts_do_on_average_on_users_it_never_saw(
    world: tuple[HandleFinder, FacetTable, Dictionary],
) -> None:
    finder, _, dictionary = world
    found = finder.find(HORROR)
    assert found is not None
    assert set(found.latents.tolist()) <= set(promoters(dictionary.concepts, HORROR).tolist())
    singles = finder._w_dec[promoters(dictionary.concepts, HORROR)]
    every = np.concatenate([found.direction[None] / np.linalg.norm(found.direction), singles])
    sizes = np.geomspace(0.02, 2.0, 40)
    tried = try_directions(finder.scoring, every, sizes.tolist(), np.zeros(len(every), np.int64)).costs
    gains = [
        np.interp(crossing(sizes, 1 - kept, 0.05), sizes, odds)
        for kept, odds in zip(tried.kept.value, tried.log_odds.value, strict=True)
    ]
    assert gains[0] > 1.2 * np.mean(gains[1:])


def test_a_handle_is_strengths_per_dose_with_its_own_range(world: tuple[HandleFinder, FacetTable, Dictionary]) -> None:
    finder, facets, dictionary = world
    (handle,) = find_handles(finder, [HORROR, "genre=War"])
    assert handle.facet == HORROR, "no concept promotes the other"
    assert len(handle.concept_ids) <= MOST_LATENTS
    found = finder.find(HORROR)
    assert found is not None
    # p95 is 2: a strength is two units of the latent.
    assert handle.strengths(0.5)[handle.concept_ids[0]] == pytest.approx(found.amounts[0] / 2.0 * 0.5)
    doses = {one.dose: one for one in handle.doses}
    assert doses[1.0].facet_log_odds.low > 0 > doses[-1.0].facet_log_odds.high
    assert handle.safe_range.low <= 0 <= handle.safe_range.high
    assert handle_facets(dictionary, facets, finder.scoring) == [HORROR]


def test_handles_survive_their_file_and_a_dictionary_without_any_has_none(
    tmp_path: Path, world: tuple[HandleFinder, FacetTable, Dictionary]
) -> None:
    finder, _, dictionary = world
    handles = find_handles(finder, [HORROR])
    replace(dictionary, handles=handles).save(tmp_path)
    (loaded,) = Dictionary.load(tmp_path, "v").handles
    assert isinstance(loaded, Handle)
    assert (loaded.concept_ids, loaded.safe_range) == (handles[0].concept_ids, handles[0].safe_range)
    assert loaded.weights == pytest.approx(handles[0].weights, rel=1e-5)
    assert [one.dose for one in loaded.doses] == [one.dose for one in handles[0].doses]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert load_handles(empty) == ()


def test_a_crossing_is_the_first_and_the_end_of_the_grid_where_there_is_none() -> None:
    sizes = np.array([1.0, 2.0, 3.0, 4.0])
    assert crossing(sizes, np.array([-0.01, 0.02, 0.01, 0.09]), 0.01) == pytest.approx(1 + 2 / 3)
    assert crossing(sizes, np.array([0.02, 0.0, 0.0, 0.0]), 0.01) == pytest.approx(0.5)
    assert crossing(sizes, np.zeros(4), 0.01) == 4.0
