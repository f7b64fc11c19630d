"""Enrichment finds planted facets and is not fooled by popularity or by one much-loved item."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from recsae.concepts.enrichment import LEAST_LOG_ODDS, effective_number, enrich, user_weights
from recsae.concepts.features import popularity_deciles
from recsae.concepts.outputs import output_items

_ITEMS = 1000


def make_items(seed: int, facets: int = 30, share: float = 0.15) -> tuple[sparse.csr_matrix, np.ndarray]:
    rng = np.random.default_rng(seed)
    matrix = (rng.random((_ITEMS + 1, facets)) < share).astype(np.float32)
    matrix[0] = 0
    counts = np.concatenate([[0], rng.zipf(1.5, _ITEMS)]).astype(np.float32)
    return sparse.csr_matrix(matrix), popularity_deciles(counts)


def drawn(rng: np.random.Generator, latents: int, items: int, pool: np.ndarray) -> sparse.csr_matrix:
    columns = np.concatenate([rng.choice(pool, items, replace=False) for _ in range(latents)])
    rows = np.repeat(np.arange(latents), items)
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(latents, _ITEMS + 1))


def test_random_items_are_rarely_enriched() -> None:
    """40 items each at facet share .15: log-odds >= ln 2 with its lower bound has probability < 1e-4 per pair."""
    facets, deciles = make_items(0)
    found = enrich(drawn(np.random.default_rng(1), 200, 40, np.arange(1, _ITEMS + 1)), facets, deciles)
    assert (found.low >= LEAST_LOG_ODDS).mean() < 1e-3
    assert abs(found.log_odds.mean()) < 0.1


def test_a_planted_facet_is_found_with_its_true_odds() -> None:
    facets, deciles = make_items(0)
    pool = np.flatnonzero(facets[:, 7].toarray().ravel())
    found = enrich(drawn(np.random.default_rng(2), 20, 60, pool), facets, deciles)
    assert (found.low[:, 7] >= LEAST_LOG_ODDS).all()
    names = tuple(f"facet={number}" for number in range(30))
    assert all(found.lifts(latent, names)[0].facet == "facet=7" for latent in range(20))


def test_a_facet_of_popular_items_is_not_enriched_in_popular_items() -> None:
    _, deciles = make_items(0)
    rng = np.random.default_rng(3)
    share = np.where(deciles == 9, 0.7, 0.05)
    facets = sparse.csr_matrix(((rng.random(_ITEMS + 1) < share) & (deciles >= 0)).astype(np.float32)[:, None])
    popular = np.flatnonzero(deciles == 9)
    found = enrich(drawn(rng, 50, 40, popular), facets, deciles)
    assert (found.low >= LEAST_LOG_ODDS).mean() < 0.05
    ignoring = enrich(drawn(rng, 50, 40, popular), facets, np.where(deciles >= 0, 0, -1).astype(np.int32))
    assert (ignoring.low >= LEAST_LOG_ODDS).all(), "an unmatched null would call it enriched"


def test_one_item_seen_by_many_is_one_observation() -> None:
    facets, deciles = make_items(0)
    item = int(np.flatnonzero(facets[:, 3].toarray().ravel())[0])
    weights = sparse.csr_matrix(([500.0], ([0], [item])), shape=(1, _ITEMS + 1))
    assert enrich(weights, facets, deciles).low[0, 3] < LEAST_LOG_ODDS
    assert effective_number(weights).tolist() == [1.0]


def test_a_latent_without_items_has_no_lifts() -> None:
    facets, deciles = make_items(0)
    found = enrich(sparse.csr_matrix((1, _ITEMS + 1)), facets, deciles)
    assert found.lifts(0, tuple("abcdefghijklmnopqrstuvwxyz1234")) == ()


def test_two_items_of_a_rare_facet_are_a_coincidence() -> None:
    _, deciles = make_items(0)
    facets = np.zeros((_ITEMS + 1, 1), np.float32)
    facets[1:7] = 1
    for carrying, enriched in ((2, False), (4, True)):
        items = [*range(1, carrying + 1), *range(100, 150 - carrying)]
        weights = sparse.csr_matrix((np.ones(50), ([0] * 50, items)), shape=(1, _ITEMS + 1))
        assert (enrich(weights, sparse.csr_matrix(facets), deciles).low[0, 0] >= LEAST_LOG_ODDS) == enriched


def test_every_user_counts_once_whatever_it_did() -> None:
    latents, users = np.array([0, 0, 0, 0, 1, 1]), np.array([5, 5, 5, 6, 5, 5])
    items = np.array([1, 1, 2, 2, 3, 0])
    weights = user_weights(latents, users, items, (2, 4)).toarray()
    np.testing.assert_allclose(weights, np.array([[0, 0.5, 1.5, 0], [0, 0, 0, 1.0]]))


def test_outputs_are_the_items_a_latent_raises_and_lowers_most() -> None:
    rng = np.random.default_rng(4)
    w_dec, vectors = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=(91, 5)).astype(np.float32)
    found = output_items(w_dec, vectors)
    scores = w_dec @ (vectors[1:] - vectors[1:].mean(axis=0)).T
    for latent in range(7):
        order = np.argsort(-scores[latent]) + 1
        assert found.promoted[latent].tolist() == order[:10].tolist()
        assert found.suppressed[latent].tolist() == order[::-1][:10].tolist()
        np.testing.assert_allclose(found.raised[latent], scores[latent, order[:10] - 1], rtol=1e-5)
        np.testing.assert_allclose(found.lowered[latent], scores[latent, order[::-1][:10] - 1], rtol=1e-5)
        assert set(found.labelled[latent].indices) == set(order[:10].tolist())
        assert found.effect[latent] == pytest.approx(np.abs(scores[latent]).mean(), rel=1e-5)
