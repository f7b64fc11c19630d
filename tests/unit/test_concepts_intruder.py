"""The intruder test: concepts whose items have something in common are told apart, others at chance, and honestly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from recsae.concepts.intruder import (
    CHANCE,
    Intruder,
    Trials,
    draw_trials,
    families_said,
    judge_by_facets,
    judge_by_users,
    shuffled,
    told_apart,
    user_vectors,
)
from recsae.concepts.records import ConceptRecord, LiteralRecord, RuleRecord
from recsae.datasets.facets import FacetTable
from recsae.datasets.schema import Histories

_ITEMS, _WIDTH, _USERS = 2000, 10, 600
_TOPIC = np.concatenate([[-1], np.arange(_ITEMS) % _WIDTH])
_DECILES = np.concatenate([[-1], np.arange(_ITEMS) // 200]).astype(np.int32)


def facets() -> FacetTable:
    """Genre and studio both tell an item's topic; the decade is chance."""
    rng = np.random.default_rng(0)
    decade = np.concatenate([[-1], rng.integers(0, 10, _ITEMS)])
    columns = np.concatenate([np.eye(11)[value][:, :10] for value in (_TOPIC, _TOPIC, decade)], axis=1)
    columns[0] = 0
    families = ("genre",) * 10 + ("studio",) * 10 + ("decade",) * 10
    names = tuple(f"{family}={at % 10}" for at, family in enumerate(families))
    return FacetTable(names, families, sparse.csr_matrix(columns.astype(np.float32)))


def drawn(pure: bool, seed: int = 0) -> Trials:
    """Each latent fires once for 60 users, decided by an item of its topic, or by any."""
    rng = np.random.default_rng(seed)
    latent = np.repeat(np.arange(_WIDTH), 60)
    row = np.concatenate([rng.permutation(_USERS)[:60] for _ in range(_WIDTH)])
    of_topic = 1 + latent + _WIDTH * rng.integers(0, _ITEMS // _WIDTH, len(latent))
    items = of_topic if pure else rng.integers(1, _ITEMS + 1, len(latent))
    strong = sparse.csr_matrix((items.astype(np.float64), (latent, row)), shape=(_WIDTH, _USERS))
    decided = strong.data.astype(np.int64)
    return draw_trials(strong, rng.random(len(latent)), np.arange(_USERS), decided, _DECILES, seed)


def nothing_said() -> list[frozenset[str]]:
    return [frozenset()] * _WIDTH


def test_trials_show_distinct_users_and_items_and_an_intruder_of_like_popularity_that_never_fires() -> None:
    trials = drawn(pure=True)
    assert len(trials) > 20
    for latent in range(_WIDTH):
        mine = trials.latent == latent
        shown, users = trials.items[mine, :4], trials.users[mine]
        assert len(np.unique(shown)) == shown.size
        assert len(np.unique(users)) == users.size
        assert (_TOPIC[shown] == latent).all()
        assert not np.isin(trials.items[mine, 4], shown).any()
    like = _DECILES[trials.items[:, [4]]] == _DECILES[trials.items[:, :4]]
    assert like.any(axis=1).all()


def test_concepts_of_one_topic_are_told_apart_by_a_family_the_label_does_not_name() -> None:
    said = [frozenset({"genre"})] * _WIDTH
    found = judge_by_facets(drawn(pure=True), facets(), said)
    assert found.overall().low > 0.7
    assert (found.scores().low[found.counts > 3] > CHANCE).all()


def share_found(judged: list[Intruder]) -> float:
    """Over 10 draws of about 128 trials each, whose standard error is .011: at chance 4 of it away is 1 in 10,000."""
    return float(np.mean([one.overall().value for one in judged]))


def test_what_the_label_names_is_hidden_from_the_judge() -> None:
    """With genre and studio said, only the decade is left, which is chance."""
    said = [frozenset({"genre", "studio"})] * _WIDTH
    judged = [judge_by_facets(drawn(pure=True, seed=seed), facets(), said) for seed in range(10)]
    assert share_found(judged) == pytest.approx(CHANCE, abs=0.045)
    everything = judge_by_facets(drawn(pure=True), facets(), [frozenset({"genre", "studio", "decade"})] * _WIDTH)
    assert everything.counts.sum() == 0
    assert not everything.scores().high.any()


def test_latents_without_a_topic_and_shuffled_trials_are_at_chance() -> None:
    trials = [drawn(pure=False, seed=seed) for seed in range(10)]
    mixed = [judge_by_facets(one, facets(), nothing_said()) for one in trials]
    assert share_found(mixed) == pytest.approx(CHANCE, abs=0.045)
    crossed = [judge_by_facets(shuffled(drawn(pure=True, seed=seed)), facets(), nothing_said()) for seed in range(10)]
    assert share_found(crossed) == pytest.approx(CHANCE, abs=0.045)


def test_items_taken_by_the_same_users_are_told_apart_without_any_metadata() -> None:
    rng = np.random.default_rng(3)
    taste = rng.integers(0, _WIDTH, 400)
    items = np.concatenate([1 + one + _WIDTH * rng.permutation(_ITEMS // _WIDTH)[:60] for one in taste])
    histories = Histories.from_rows(np.repeat(np.arange(400), 60), items, np.arange(len(items), dtype=float), 400)
    vectors = user_vectors(histories, np.ones(400, bool), _ITEMS)
    assert judge_by_users(drawn(pure=True), vectors, nothing_said()).overall().low > 0.8
    nobody = user_vectors(histories, np.zeros(400, bool), _ITEMS)
    assert judge_by_users(drawn(pure=True), nobody, nothing_said()).counts.sum() == 0
    told = judge_by_users(drawn(pure=True), vectors, [frozenset({"like"})] * _WIDTH)
    assert told.counts.sum() == 0, "a label that speaks of items consumed together has told the judge already"


def test_ties_count_by_their_share_and_nothing_in_common_is_no_trial() -> None:
    vectors = sparse.csr_matrix(np.array([[0, 0], [1, 0], [1, 0], [0, 1], [0, 0], [0, 0], [1, 0], [1, 0]], float))
    items = np.array([[1, 2, 6, 7, 3], [1, 2, 6, 4, 5], [1, 2, 6, 3, 7], [4, 5, 4, 5, 4]])
    assert told_apart(items, vectors).tolist()[:3] == [1.0, 0.5, 0.0]
    assert np.isnan(told_apart(items, vectors)[3])


def test_the_overall_interval_resamples_users_so_that_repeated_users_widen_it() -> None:
    rng = np.random.default_rng(4)
    n = 400
    hit = (rng.random(n) < 0.5).astype(np.float64)
    items = np.ones((n, 5), np.int64)
    apart = Trials(np.arange(n) % 5, items, np.arange(4 * n).reshape(n, 4))
    # Twenty circles of four users, each of whom is right always or never.
    circle = np.arange(n) % 20
    together = Trials(apart.latent, items, 4 * circle[:, None] + np.arange(4)[None, :])
    one, other = (Intruder(apart, hit, 5).overall(), Intruder(together, (circle < 10).astype(float), 5).overall())
    assert other.high - other.low > 2 * (one.high - one.low)


def test_a_latent_with_three_items_has_no_trial() -> None:
    strong = sparse.csr_matrix(np.ones((1, 9)))
    trials = draw_trials(strong, np.ones(9), np.arange(9), np.array([1, 2, 3] * 3), _DECILES)
    assert len(trials) == 0
    assert judge_by_facets(trials, facets(), [frozenset()]).overall().value == 0


@pytest.mark.parametrize(
    ("facet", "family"),
    [
        ("genre=1", {"genre"}),
        ("decade=2", {"decade"}),
        ("decade=2 ∩ genre=1", {"decade", "genre"}),
        ("", set()),
    ],
)
def test_the_families_a_label_speaks_of_are_those_of_its_literals(facet: str, family: set[str]) -> None:
    kind = "recent" if facet else "length"
    concept = ConceptRecord("c0", 0, rule=RuleRecord(literals=(LiteralRecord("", kind, facet, 0.4),)))
    assert families_said([concept], facets()) == [frozenset(family)]


def test_an_item_it_fires_on_very_often_is_no_intruder() -> None:
    users = 40 * 256
    items = np.arange(users, dtype=np.int64) % 40 + 1
    strong = sparse.csr_matrix(np.ones((1, users)))
    trials = draw_trials(strong, np.ones(users), np.arange(users), items, np.array([-1, *[0] * 41], np.int32))
    assert len(trials)
    assert set(trials.items[:, 4].tolist()) == {41}
