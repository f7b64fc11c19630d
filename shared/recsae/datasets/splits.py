"""Splits of histories to train and test a recommender. Splits of users for concepts: `recsae.concepts.splits`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.schema import Histories
from recsae.errors import InvalidRequestError


@dataclass(frozen=True)
class Split:
    """Training histories and, per user, one validation and one test item (0 = none).

    `train` int32 ragged; `valid`, `test` int32 [n_users]. The test item follows the validation item, which follows
    the training history, so the input for the test item is the training history and the validation item.
    """

    train: Histories
    valid: NDArray[np.int32]
    test: NDArray[np.int32]

    def test_inputs(self) -> Histories:
        """Histories before each test item: training history plus validation item."""
        lengths = self.train.lengths + (self.valid > 0)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        items = np.zeros(offsets[-1], dtype=np.int32)
        times = np.zeros(offsets[-1])
        users = np.repeat(np.arange(self.train.n_users), self.train.lengths)
        at = np.arange(len(users)) - self.train.offsets[users] + offsets[users]
        items[at], times[at] = self.train.items, self.train.timestamps
        with_valid = np.flatnonzero(self.valid)
        last = offsets[with_valid + 1] - 1
        items[last], times[last] = self.valid[with_valid], np.inf
        return Histories(offsets, items, times)


def leave_one_out(histories: Histories) -> Split:
    """The last interaction of each user is for test, the one before for validation.

    Users with fewer than three interactions give all of them to training.
    """
    users = np.repeat(np.arange(histories.n_users), histories.lengths)
    from_end = histories.offsets[users + 1] - 1 - np.arange(len(users))
    enough = histories.lengths >= 3
    return _split(histories, is_valid=(from_end == 1) & enough[users], is_test=(from_end == 0) & enough[users])


def time_split(histories: Histories, valid_from: float, test_from: float) -> Split:
    """Interactions before `valid_from` train; each user's first one in either later span is its target.

    InvalidRequestError when the times are out of order or nothing would be left to train on.
    """
    if valid_from >= test_from:
        raise InvalidRequestError(f"valid_from {valid_from} is not before test_from {test_from}")
    if not (histories.timestamps < valid_from).any():
        raise InvalidRequestError(f"no interaction before valid_from {valid_from}; choose a later time")
    in_valid = (histories.timestamps >= valid_from) & (histories.timestamps < test_from)
    in_test = histories.timestamps >= test_from
    is_valid, is_test = _first_of_user(histories, in_valid), _first_of_user(histories, in_test)
    return _split(histories, is_valid, is_test, is_train=histories.timestamps < valid_from)


def _split(
    histories: Histories,
    is_valid: NDArray[np.bool_],
    is_test: NDArray[np.bool_],
    is_train: NDArray[np.bool_] | None = None,
) -> Split:
    users = np.repeat(np.arange(histories.n_users), histories.lengths)
    targets = []
    for mask in (is_valid, is_test):
        target = np.zeros(histories.n_users, dtype=np.int32)
        target[users[mask]] = histories.items[mask]
        targets.append(target)
    train = ~(is_valid | is_test) if is_train is None else is_train
    return Split(histories.keep(train), targets[0], targets[1])


def _first_of_user(histories: Histories, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    users = np.repeat(np.arange(histories.n_users), histories.lengths)
    found = np.flatnonzero(mask)
    _, first = np.unique(users[found], return_index=True)
    result = np.zeros_like(mask)
    result[found[first]] = True
    return result
