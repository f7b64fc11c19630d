"""Coherence of a latent's items: means over pairs as defined, random items of like popularity, brands left out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import sparse

from recsae.concepts.coherence import coherence, facet_vectors, members_of, title_vectors, unit


def random_case(seed: int = 0) -> tuple[sparse.csr_matrix, sparse.csr_matrix, np.ndarray]:
    rng = np.random.default_rng(seed)
    vectors = unit(
        sparse.csr_matrix(np.concatenate([np.zeros((1, 6)), rng.random((30, 6)) * (rng.random((30, 6)) < 0.5)]))
    )
    members = sparse.csr_matrix((rng.random((5, 31)) < 0.3) * np.concatenate([[0], np.ones(30)]))
    deciles = np.concatenate([[-1], np.arange(30) * 3 // 30]).astype(np.int32)
    return members, vectors, deciles


def test_all_means_equal_those_over_explicit_pairs() -> None:
    members, vectors, deciles = random_case()
    found = coherence(members, vectors, deciles)
    cosine = (vectors @ vectors.T).toarray()
    items = [np.flatnonzero(row) for row in members.toarray()]
    for latent, mine in enumerate(items):
        pairs = list(itertools.combinations(mine, 2))
        assert found.intra[latent] == pytest.approx(np.mean([cosine[a, b] for a, b in pairs]))
        expected = [
            np.mean(
                [
                    cosine[c, d]
                    for c in np.flatnonzero(deciles == deciles[a])
                    for d in np.flatnonzero(deciles == deciles[b])
                    if c != d
                ]
            )
            for a, b in pairs
        ]
        assert found.random[latent] == pytest.approx(np.mean(expected))
    between = [np.mean(cosine[np.ix_(one, other)]) for one, other in itertools.permutations(items, 2)]
    assert found.inter == pytest.approx(np.mean(between))


def test_latents_of_like_items_have_a_high_lift_and_random_ones_none() -> None:
    rng = np.random.default_rng(1)
    topic = np.concatenate([[-1], np.arange(200) % 20])
    vectors = sparse.csr_matrix(np.eye(21)[topic] * (topic >= 0)[:, None])
    deciles = np.concatenate([[-1], rng.permutation(200) % 10]).astype(np.int32)
    pure = members_of(
        np.repeat(np.arange(20), 5), np.concatenate([np.flatnonzero(topic == t)[:5] for t in range(20)]), 20, 200
    )
    mixed = members_of(
        np.repeat(np.arange(60), 5), np.concatenate([1 + rng.permutation(200)[:5] for _ in range(60)]), 60, 200
    )
    assert coherence(pure, vectors, deciles).lift().low > 10
    chance = coherence(mixed, vectors, deciles).lift()
    assert chance.low < 1 < chance.high


def test_one_item_however_often_it_fired_is_no_pair() -> None:
    members = members_of(np.array([0, 0, 0, 1, 1]), np.array([4, 4, 4, 4, 5]), 3, 30)
    found = coherence(members, random_case()[1], random_case()[2])
    assert found.measured.tolist() == [False, True, False]
    assert members.sum() == 3


def test_brand_words_make_no_two_titles_alike() -> None:
    titles = ("OPI nail lacquer red", "OPI hand cream", "Essie nail lacquer blue", "OPI foot file")
    brands = ("OPI", "OPI", "Essie", "")
    with_brand = title_vectors(titles)
    without = title_vectors(titles, brands)
    assert (with_brand[1] @ with_brand[2].T).toarray()[0, 0] > 0
    assert (without[1] @ without[2].T).toarray()[0, 0] == 0
    assert (without[1] @ without[4].T).toarray()[0, 0] == 0, "a brand is one even where the brand field is empty"
    assert (without[1] @ without[3].T).toarray()[0, 0] > 0.9


def test_a_word_that_is_rarely_a_brand_stays_for_other_makers() -> None:
    titles = ("Nail Tek nail strengthener", "Essie nail lacquer", "Zoya nail lacquer", "Sally nail glue")
    vectors = title_vectors(titles, ("Nail Tek", "Essie", "Zoya", "Sally"))
    assert (vectors[2] @ vectors[4].T).toarray()[0, 0] >= 0
    assert vectors[1].nnz == 0, "its own brand's words are left out"


def test_rare_facets_weigh_more() -> None:
    facets = sparse.csr_matrix(np.array([[0, 0], [1, 1], [1, 0], [1, 0], [0, 1], [1, 0]], np.float32))
    vectors = facet_vectors(facets)
    shared_rare = (vectors[1] @ vectors[4].T).toarray()[0, 0]
    shared_common = (vectors[1] @ vectors[2].T).toarray()[0, 0]
    assert shared_rare > shared_common > 0
