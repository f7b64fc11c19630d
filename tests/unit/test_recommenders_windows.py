"""How histories are cut for training."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsae.datasets.schema import Histories
from recsae.recommenders.windows import cut_windows


def numbered(lengths: list[int]) -> Histories:
    """Histories in which every interaction has an item of its own."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    return Histories(offsets, items, items.astype(np.float64))


@given(lengths=st.lists(st.integers(0, 23), min_size=1, max_size=8), size=st.integers(1, 7), seed=st.integers(0, 99))
def test_every_interaction_but_a_users_first_is_a_target_exactly_once(lengths: list[int], size: int, seed: int) -> None:
    histories = numbered(lengths)
    windows = cut_windows(histories, size, np.random.default_rng(seed))
    _, targets = windows.gather(np.arange(len(windows)))
    firsts = {int(histories.of(user)[0]) for user in range(histories.n_users) if len(histories.of(user))}
    expected = Counter(item for item in histories.items.tolist() if item not in firsts)
    assert Counter(targets[targets > 0].tolist()) == expected


@given(lengths=st.lists(st.integers(0, 23), min_size=1, max_size=8), size=st.integers(1, 7), seed=st.integers(0, 99))
def test_target_follows_its_input_and_padding_stands_on_the_right(lengths: list[int], size: int, seed: int) -> None:
    windows = cut_windows(numbered(lengths), size, np.random.default_rng(seed))
    inputs, targets = windows.gather(np.arange(len(windows)))
    assert ((inputs > 0) == (targets > 0)).all()
    assert (targets[targets > 0] == inputs[inputs > 0] + 1).all()
    assert (np.diff((inputs > 0).astype(int), axis=1) <= 0).all()
    assert (windows.lengths >= 1).all()


def test_long_histories_are_cut_at_other_places_each_time() -> None:
    random = np.random.default_rng(0)
    histories = numbered([200])
    cuts = {tuple(cut_windows(histories, 50, random).starts.tolist()) for _ in range(10)}
    assert len(cuts) > 5
