"""Ranks over the whole catalogue by a torch network, against one user at a time."""

import numpy as np
import pytest
import torch

from recsae.datasets.planted import make_planted
from recsae.datasets.splits import Split, leave_one_out
from recsae.recommenders.families.sasrec import Sasrec, SasrecShape, untrained_sasrec
from recsae.recommenders.full_ranking import newest_items, target_ranks
from recsae.recommenders.metrics import NOWHERE

PLANTED = make_planted(seed=5, n_users=40, n_items=60, n_concepts=4, mean_length=15).dataset
SHAPE = SasrecShape(n_items=60, max_history=8, dim=16, blocks=1)
USERS = np.arange(40)


@pytest.fixture(scope="module")
def model() -> Sasrec:
    return untrained_sasrec(SHAPE, seed=2)


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(PLANTED.histories)


def rank_of(model: Sasrec, history: np.ndarray, target: int, left_out: set[int]) -> int:
    newest = list(history[-SHAPE.max_history :])
    padded = torch.tensor([[*newest, *[0] * (SHAPE.max_history - len(newest))]], dtype=torch.int64)
    with torch.no_grad():
        scores = model.scores(model.last(padded))[0].tolist()
    others = [item for item in range(1, 61) if item != target and item not in left_out]
    return 1 + len([item for item in others if scores[item] >= scores[target]])


@pytest.mark.parametrize("consumed", [False, True])
def test_ranks_are_those_of_one_user_at_a_time(model: Sasrec, split: Split, consumed: bool) -> None:
    found = target_ranks(model, split.train, split.valid, USERS, consumed=consumed, batch=7)
    for user in USERS:
        history = split.train.of(int(user))
        left_out = set() if consumed else set(history.tolist())
        assert found[user] == rank_of(model, history, int(split.valid[user]), left_out)


def test_a_target_consumed_before_ranks_nowhere_unless_consumed_items_compete(model: Sasrec, split: Split) -> None:
    seen = np.array([split.train.of(int(user))[0] for user in USERS])
    assert (target_ranks(model, split.train, seen, USERS) == NOWHERE).all()
    assert (target_ranks(model, split.train, seen, USERS, consumed=True) <= SHAPE.n_items).all()


def test_no_user_gives_no_rank(model: Sasrec, split: Split) -> None:
    assert len(target_ranks(model, split.train, split.valid, USERS[:0])) == 0


def test_newest_items_are_cut_from_the_end_and_padded_behind(split: Split) -> None:
    padded = newest_items(split.train, USERS, 8)
    for user in USERS:
        newest = split.train.of(int(user))[-8:]
        assert padded[user].tolist() == [*newest, *[0] * (8 - len(newest))]
