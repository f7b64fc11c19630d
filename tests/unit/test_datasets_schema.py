"""Saved data sets come back as they were, broken ones do not come back at all; splits never leak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsae.datasets.attributes import as_number, typed_column, typed_rows
from recsae.datasets.planted import make_planted
from recsae.datasets.schema import Dataset, Histories, load_dataset, publish_dataset, save_dataset
from recsae.datasets.splits import Split, leave_one_out, time_split
from recsae.datasets.summary import summarise
from recsae.errors import CorruptArtifactError, InvalidRequestError, NotFoundError
from recsae.store.artifacts import ArtifactStore
from recsae.store.pseudonyms import pseudonym

KEY = b"a key of some length"


@pytest.fixture
def dataset() -> Dataset:
    """A small made data set."""
    return make_planted(seed=1, n_users=12, n_items=20, n_concepts=4, mean_length=8).dataset


def histories_of(*rows: tuple[int, int, float], n_users: int = 2) -> Histories:
    """Histories from (user, item, time)."""
    users, items, times = (np.array(column) for column in zip(*rows, strict=True))
    return Histories.from_rows(users, items, times.astype(np.float64), n_users)


def lists(histories: Histories) -> list[list[int]]:
    """Items per user."""
    return [histories.of(user).tolist() for user in range(histories.n_users)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 2)), max_size=40))
def test_histories_equal_a_stable_sort_of_each_users_rows(rows: list[tuple[int, int, int]]) -> None:
    columns: NDArray[np.int64] = np.array(rows, dtype=np.int64).reshape(-1, 3)
    histories = Histories.from_rows(columns[:, 0], columns[:, 1], columns[:, 2].astype(np.float64), 4)
    expected = [
        [item for user, item, _ in sorted(rows, key=lambda row: row[2]) if user == wanted] for wanted in range(4)
    ]
    assert lists(histories) == expected
    assert histories.users.tolist() == [user for user, items in enumerate(expected) for _ in items]


def test_a_saved_data_set_comes_back_equal(dataset: Dataset, tmp_path: Path) -> None:
    save_dataset(dataset, tmp_path)
    loaded = load_dataset(tmp_path)
    assert (loaded.name, loaded.items, loaded.users) == (dataset.name, dataset.items, dataset.users)
    for name in ("offsets", "items", "timestamps"):
        was, came = getattr(dataset.histories, name), getattr(loaded.histories, name)
        assert was.dtype == came.dtype
        assert np.array_equal(was, came)


def test_a_folder_without_data_set_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="recsae data import"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("name", ["histories.safetensors", "items.json", "users.json"])
def test_a_changed_or_missing_file_is_noticed(dataset: Dataset, tmp_path: Path, name: str) -> None:
    save_dataset(dataset, tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-2] + b" " + content[-1:])
    with pytest.raises(CorruptArtifactError, match=name):
        load_dataset(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CorruptArtifactError, match=name):
        load_dataset(tmp_path)


def test_histories_that_point_outside_the_items_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    items = dataset.histories.items.copy()
    items[3] = dataset.items.count + 1
    save_dataset(replace(dataset, histories=replace(dataset.histories, items=items)), tmp_path)
    with pytest.raises(CorruptArtifactError, match="do not fit"):
        load_dataset(tmp_path)


def test_the_fingerprint_follows_content_and_not_the_name(dataset: Dataset) -> None:
    assert dataset.fingerprint() == replace(dataset, name="other").fingerprint()
    assert len(dataset.fingerprint()) == 16
    times = dataset.histories.timestamps.copy()
    times[0] -= 1
    changed = [
        replace(dataset, histories=replace(dataset.histories, timestamps=times)),
        replace(dataset, items=replace(dataset.items, titles=("x", *dataset.items.titles[1:]))),
        replace(dataset, users=replace(dataset.users, columns={})),
    ]
    assert len({one.fingerprint() for one in [dataset, *changed]}) == 4


def test_a_published_data_set_holds_pseudonyms_alone(dataset: Dataset, tmp_path: Path) -> None:
    named = replace(dataset, users=replace(dataset.users, ids=tuple(f"person-{n}" for n in range(12))))
    store = ArtifactStore(str(tmp_path / "artifacts"))
    artifact = store.fetch("dataset", publish_dataset(store, named, KEY))
    assert not [path for path in artifact.folder.iterdir() if b"person-" in path.read_bytes()]
    loaded = load_dataset(artifact.folder)
    assert loaded.users.ids == tuple(pseudonym(KEY, user_id) for user_id in named.users.ids)
    assert named.users.columns
    assert loaded.users.columns == {}
    assert lists(loaded.histories) == lists(named.histories)


def test_pseudonyms_depend_on_key_and_id_and_need_a_key() -> None:
    assert pseudonym(KEY, "u1") == pseudonym(KEY, "u1")
    assert len({pseudonym(KEY, "u1"), pseudonym(KEY, "u2"), pseudonym(b"another", "u1")}) == 3
    assert all(len(pseudonym(KEY, user_id)) == 16 for user_id in ("", "ü", "x" * 1000))
    with pytest.raises(InvalidRequestError, match="key is empty"):
        pseudonym(b"", "u1")


def test_the_last_item_is_for_test_and_the_one_before_for_validation() -> None:
    split = leave_one_out(histories_of((0, 5, 1), (0, 6, 2), (0, 7, 3), (0, 8, 4), (1, 5, 1), (1, 6, 2)))
    assert lists(split.train) == [[5, 6], [5, 6]]
    assert split.valid.tolist() == [7, 0]
    assert split.test.tolist() == [8, 0]
    assert lists(split.test_inputs()) == [[5, 6, 7], [5, 6]]


def test_of_tied_last_interactions_the_one_further_down_the_file_is_for_test() -> None:
    split = leave_one_out(histories_of((0, 9, 5), (0, 2, 5), (0, 7, 1), (0, 4, 5), n_users=1))
    assert (split.valid.tolist(), split.test.tolist()) == ([2], [4])
    assert lists(split.train) == [[7, 9]]


def test_time_split_takes_the_first_item_of_each_span() -> None:
    rows = [(0, 1, 1), (0, 2, 11), (0, 3, 12), (0, 4, 21), (0, 5, 22), (1, 6, 25), (2, 7, 15)]
    split = time_split(histories_of(*rows, n_users=3), valid_from=10, test_from=20)
    assert lists(split.train) == [[1], [], []]
    assert split.valid.tolist() == [2, 0, 7]
    assert split.test.tolist() == [4, 6, 0]
    assert lists(split.test_inputs()) == [[1, 2, 3], [], [7]]


def test_time_split_without_training_data_or_order_is_refused() -> None:
    histories = histories_of((0, 1, 5), (1, 2, 6))
    with pytest.raises(InvalidRequestError, match="not before"):
        time_split(histories, valid_from=6, test_from=6)
    with pytest.raises(InvalidRequestError, match="no interaction is before"):
        time_split(histories, valid_from=5, test_from=6)


@pytest.mark.parametrize("split", [leave_one_out, lambda histories: time_split(histories, 4, 6)])
def test_no_target_is_in_what_precedes_it(dataset: Dataset, split: object) -> None:
    # Items of a planted history are distinct, so an item seen before its test would be a leak.
    made = split(dataset.histories)  # type: ignore[operator]
    assert isinstance(made, Split)
    assert (made.valid > 0).any()
    assert (made.test > 0).any()
    for user in range(dataset.histories.n_users):
        before_valid, before_test = made.train.of(user).tolist(), made.test_inputs().of(user).tolist()
        assert made.valid[user] not in before_valid
        assert made.test[user] not in before_test
        whole = dataset.histories.of(user).tolist()
        assert whole[: len(before_test)] == before_test
        assert before_test[: len(before_valid)] == before_valid


def test_a_column_is_of_numbers_only_when_every_filled_cell_is_one() -> None:
    assert typed_column(["31", "", "-2.5"]) == (31.0, None, -2.5)
    assert typed_column(["31", "", "F"]) == ("31", None, "F")
    assert typed_column(["02139", "94110"]) == ("02139", "94110")
    assert typed_column(["0", "0.5"]) == (0.0, 0.5)
    assert typed_column(["", ""]) == (None, None)


def test_attributes_leave_out_empty_cells() -> None:
    assert typed_rows({"age": ["31", ""], "town": ["", "Rom"]}, 2) == [{"age": 31.0}, {"town": "Rom"}]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1_000", " 5", "5 ", "", "0x10", "1e999", "٣"])
def test_what_only_python_takes_for_a_number_is_none(text: str) -> None:
    assert as_number(text) is None


def test_summary_counts_what_there_is() -> None:
    rows = [(0, 1, 1), (0, 2, 1), (0, 3, 2), (1, 1, 1), (1, 1, 3)]
    made = make_planted(n_users=2, n_items=5, n_concepts=2).dataset
    summary = summarise(replace(made, histories=histories_of(*rows)))
    assert (summary.users, summary.items, summary.interactions) == (2, 5, 5)
    assert (summary.density, summary.length_min, summary.length_median, summary.length_max) == (0.5, 2, 2.5, 3)
    assert (summary.top_decile_share, summary.tied_share) == (0.6, 0.4)
    assert (summary.first_at, summary.last_at, summary.repeated_titles) == (1.0, 3.0, 0)
