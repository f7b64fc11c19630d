"""How histories are cut for training."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsae.datasets.planted import make_planted
from recsae.datasets.schema import Histories
from recsae.recommenders.windows import by_length, cut_windows, shuffled


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


@pytest.mark.parametrize("order", [shuffled, by_length])
def test_batches_hold_every_window_once(order: Callable[..., Iterator[NDArray[np.int64]]]) -> None:
    histories = make_planted(seed=1, n_users=300, n_items=50, n_concepts=5, mean_length=12).dataset.histories
    windows = cut_windows(histories, 10, np.random.default_rng(0))
    batches = list(order(windows, 4, np.random.default_rng(1)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(windows)))


def test_batches_by_length_have_equal_targets_and_little_padding() -> None:
    histories = make_planted(seed=1, n_users=2_000, n_items=50, n_concepts=5, mean_length=12).dataset.histories
    windows = cut_windows(histories, 10, np.random.default_rng(0))
    batches = list(by_length(windows, 16, np.random.default_rng(1)))
    targets = np.array([windows.lengths[batch].sum() for batch in batches])
    slots = sum(len(batch) * int(windows.lengths[batch].max()) for batch in batches)
    assert targets.max() < 1.5 * targets.mean()
    padding = len(windows) * windows.max_history - windows.lengths.sum()
    assert slots - windows.lengths.sum() < 0.2 * padding


def test_windows_cut_to_the_longest_hold_the_same_items() -> None:
    histories = make_planted(seed=1, n_users=30, n_items=50, n_concepts=5, mean_length=12).dataset.histories
    windows = cut_windows(histories, 20, np.random.default_rng(0))
    chosen = np.argsort(windows.lengths)[:5]
    longest = int(windows.lengths[chosen].max())
    for whole, short in zip(windows.gather(chosen), windows.gather(chosen, longest), strict=True):
        assert short.shape == (5, longest)
        np.testing.assert_array_equal(whole[:, :longest], short)
        assert not whole[:, longest:].any()
