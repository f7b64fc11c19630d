"""Negatives and windows drawn for training, against sets and loops."""

import itertools

import numpy as np
import pytest

from recsae.datasets.planted import make_planted
from recsae.datasets.schema import Histories
from recsae.recommenders.families.negative_sampling import NegativeSampler, triples
from recsae.recommenders.families.user_windows import user_windows

N_ITEMS = 60
HISTORIES = make_planted(seed=1, n_users=30, n_items=N_ITEMS, n_concepts=4, mean_length=20).dataset.histories


@pytest.fixture(scope="module")
def sampler() -> NegativeSampler:
    return NegativeSampler(HISTORIES, N_ITEMS)


def test_what_a_user_took_is_known(sampler: NegativeSampler) -> None:
    found = sampler.taken(np.arange(30)[:, None], np.arange(1, N_ITEMS + 1)[None])
    for user in range(30):
        assert set(np.flatnonzero(found[user]) + 1) == set(HISTORIES.of(user).tolist())


def test_negatives_are_never_what_the_user_took_and_every_other_item_comes(sampler: NegativeSampler) -> None:
    users = np.repeat(np.arange(30), 100)
    drawn = sampler.draw(users, 10, np.random.default_rng(0))
    for user in range(30):
        others = set(range(1, N_ITEMS + 1)) - set(HISTORIES.of(user).tolist())
        assert set(drawn[users == user].ravel().tolist()) == others  # 1,000 draws of at most 60: one is missed in 1e-6


def test_a_user_who_took_everything_gets_an_item_all_the_same() -> None:
    everything = Histories(np.array([0, 3]), np.array([1, 2, 3], np.int32), np.arange(3.0))
    drawn = NegativeSampler(everything, 3).draw(np.array([0]), 4, np.random.default_rng(0))
    assert ((drawn >= 1) & (drawn <= 3)).all()


def test_every_interaction_comes_once_with_a_negative(sampler: NegativeSampler) -> None:
    batches = list(triples(HISTORIES, sampler, 64, np.random.default_rng(0)))
    assert {len(batch.users) for batch in batches[:-1]} == {64}
    pairs = [pair for batch in batches for pair in zip(batch.users.tolist(), batch.positives.tolist(), strict=True)]
    assert sorted(pairs) == sorted(zip(HISTORIES.users.tolist(), HISTORIES.items.tolist(), strict=True))
    assert not any(sampler.taken(batch.users, batch.negatives).any() for batch in batches)


def test_a_small_data_set_is_cut_into_smaller_batches() -> None:
    large = make_planted(seed=1, n_users=200, n_items=N_ITEMS, n_concepts=4, mean_length=20).dataset.histories
    sizes = [
        [len(users) for users, _ in user_windows(one, 7, 8, np.random.default_rng(0))] for one in (HISTORIES, large)
    ]
    assert max(sizes[0]) == sum(sizes[0]) // 50 < 8
    assert max(sizes[1]) == 8


def test_windows_belong_to_their_user_and_cover_each_step_of_the_history_once() -> None:
    steps: list[tuple[int, int, int]] = []
    for users, items in user_windows(HISTORIES, 7, 8, np.random.default_rng(0)):
        assert items.shape == (len(users), 8)
        for user, row in zip(users.tolist(), items.tolist(), strict=True):
            taken = [item for item in row if item]
            assert row == [*taken, *[0] * (8 - len(taken))]
            steps += [(user, one, other) for one, other in itertools.pairwise(taken)]
    expected = [
        (user, int(one), int(other)) for user in range(30) for one, other in itertools.pairwise(HISTORIES.of(user))
    ]
    assert sorted(steps) == sorted(expected)
