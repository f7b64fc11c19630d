"""Splits of histories to train and test a recommender. Splits of users for concepts: `recsae.concepts.splits`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.schema import Histories
from recsae.errors import InvalidRequestError

_LEAST_FOR_THREE = 3


@dataclass(frozen=True)
class Split:
    """Training histories and, per user, one validation and one test item (0 = none).

    `train` is what a model may learn from and the input for the validation item; `before_test` is everything a
    user did before the test item and the input for it. `valid`, `test` int32 [n_users]. Users keep their index.
    """

    train: Histories
    valid: NDArray[np.int32]
    test: NDArray[np.int32]
    before_test: Histories

    def test_inputs(self) -> Histories:
        """Input for each test item: all a user did before it, the validation item included."""
        return self.before_test


def leave_one_out(histories: Histories) -> Split:
    """The last interaction of each user is for test, the one before for validation.

    "Last" follows the tie rule of `Histories`: of equal timestamps the one further down the file. Users with fewer
    than three interactions give all of them to training.
    """
    users = histories.users
    from_end = histories.offsets[users + 1] - 1 - np.arange(len(users))
    enough = (histories.lengths >= _LEAST_FOR_THREE)[users]
    is_valid, is_test = (from_end == 1) & enough, (from_end == 0) & enough
    return Split(
        train=histories.keep(~(is_valid | is_test)),
        valid=_items_of(histories, is_valid),
        test=_items_of(histories, is_test),
        before_test=histories.keep(~is_test),
    )


def time_split(histories: Histories, valid_from: float, test_from: float) -> Split:
    """Interactions before `valid_from` train; each user's first one in either later span is its target.

    Spans are [valid_from, test_from) and [test_from, ...), in the unit of the timestamps. InvalidRequestError when
    they are out of order or nothing would be left to train on.
    """
    if valid_from >= test_from:
        raise InvalidRequestError(f"valid_from {valid_from} is not before test_from {test_from}; swap or mend them")
    times = histories.timestamps
    if not (times < valid_from).any():
        raise InvalidRequestError(f"no interaction is before valid_from {valid_from}; choose a later time")
    return Split(
        train=histories.keep(times < valid_from),
        valid=_items_of(histories, _first_of_user(histories, (times >= valid_from) & (times < test_from))),
        test=_items_of(histories, _first_of_user(histories, times >= test_from)),
        before_test=histories.keep(times < test_from),
    )


def _items_of(histories: Histories, mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """int32 [n_users]: the one item of each user where mask [n] holds, 0 where there is none."""
    items = np.zeros(histories.n_users, dtype=np.int32)
    items[histories.users[mask]] = histories.items[mask]
    return items


def _first_of_user(histories: Histories, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    found = np.flatnonzero(mask)
    _, first = np.unique(histories.users[found], return_index=True)
    result = np.zeros_like(mask)
    result[found[first]] = True
    return result
