"""The data set of a run: cut to the items a model knows, and with items as subjects where they stand beside users."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsae.concepts.splits import split_users
from recsae.datasets.planted import make_planted
from recsae.pipeline.sources import Subject
from recsae.pipeline.stages.run_data import Part, RunData

DATASET = make_planted(seed=3, n_users=60, n_items=30, mean_length=8).dataset
WHOLE = RunData.of(DATASET)


@given(st.sets(st.integers(1, 30), max_size=29))
def test_items_left_out_change_nothing_else(unknown: set[int]) -> None:
    data = WHOLE.without(sorted(unknown))
    left = [item for item in range(1, 31) if item not in unknown]
    assert data.dataset.items.ids == tuple(DATASET.items.ids[item - 1] for item in left)
    assert data.dataset.items.columns["year"] == tuple(DATASET.items.columns["year"][item - 1] for item in left)
    for user in range(60):
        kept = np.isin(WHOLE.histories.of(user), left)
        assert data.item_ids(data.histories.of(user)) == WHOLE.item_ids(WHOLE.histories.of(user)[kept])
        target = int(WHOLE.targets[user])
        expected = DATASET.items.ids[target - 1] if target in left else ""
        assert (data.item_ids(data.targets[user : user + 1])[0] if data.targets[user] else "") == expected
    times = WHOLE.histories.timestamps[np.isin(WHOLE.histories.items, left)]
    np.testing.assert_array_equal(data.histories.timestamps, times)


def test_a_model_that_knows_every_item_reads_the_data_as_they_are() -> None:
    assert WHOLE.without([]) is WHOLE


def test_items_become_users_with_themselves_as_history() -> None:
    data = WHOLE.with_items()
    assert (data.histories.n_users, data.first_item_subject) == (90, 60)
    for user in range(60):
        np.testing.assert_array_equal(data.histories.of(user), WHOLE.histories.of(user))
    for item in range(1, 31):
        assert data.histories.of(59 + item).tolist() == [item]
    assert not data.targets[60:].any()
    assert data.subject(60, data.histories.of(60)) == Subject(("i1",), "item:i1")
    assert data.someone(3) == Subject((), DATASET.users.ids[3])


def test_items_are_split_into_parts_as_users_are_and_each_is_in_one() -> None:
    """By the hash of their id: 300 items put between 50 and 70 % into the SAE's part."""
    many = RunData.of(make_planted(seed=0, n_users=60, n_items=300, mean_length=8).dataset).with_items()
    parts = [many.users_of(part) for part in (Part.SAE, Part.CONSTRUCTION, Part.VERIFICATION)]
    assert sorted(np.concatenate(parts).tolist()) == np.flatnonzero(many.histories.lengths).tolist()
    share = (parts[0] >= 60).sum() / 300
    assert 0.5 < share < 0.7
    np.testing.assert_array_equal(split_users(many.dataset.users.ids)[parts[0]], 0)


def test_nobody_with_a_history_is_a_subject_without_id() -> None:
    assert WHOLE.subject(-1, np.array([2, 5], np.int32)) == Subject(("i2", "i5"))
