"""Atomic files, CSV and Parquet: what becomes of good rows, and of bad ones."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from recsae.datasets.atomic import load_atomic
from recsae.datasets.schema import Dataset
from recsae.datasets.tabular import ColumnMapping, load_table
from recsae.errors import InvalidRequestError, NotFoundError

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
ITEM = "item_id:token\tmovie_title:token_seq\tyear:token\tgenre:token_seq"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Atomic files of three users and three items; item 9 was never taken."""
    rows = ["b\t2\t5\t30", "a\t1\t4\t20", "a\t2\t3\t10", "c\t3\t1\t5"]
    write(tmp_path / "toy.inter", INTER, *rows)
    write(tmp_path / "toy.item", ITEM, "9\tNobody\t1990\tWar", "2\tTwo Words\t1991\tComedy Drama", "1\tOne\t1992\t")
    write(tmp_path / "toy.user", "user_id:token\tage:float", "a\t31", "b\t")
    return tmp_path


def write(path: Path, *lines: str, end: str = "\n") -> None:
    path.write_bytes((end.join(lines) + end).encode())


def histories(dataset: Dataset) -> dict[str, list[str]]:
    """Item ids by user id."""
    return {
        user_id: [dataset.items.ids[item - 1] for item in dataset.histories.of(number)]
        for number, user_id in enumerate(dataset.users.ids)
    }


def test_histories_are_in_order_of_time(folder: Path) -> None:
    assert histories(load_atomic(folder).dataset) == {"a": ["2", "1"], "b": ["2"], "c": ["3"]}


def test_items_come_in_the_order_of_the_item_file_and_undescribed_ones_last(folder: Path) -> None:
    items = load_atomic(folder).dataset.items
    assert items.ids == ("2", "1", "3")
    assert items.titles == ("Two Words", "One", "3")
    assert items.columns == {"year": ("1991", "1992", ""), "genre": ("Comedy|Drama", "", "")}


def test_users_without_description_have_empty_attributes(folder: Path) -> None:
    users = load_atomic(folder).dataset.users
    assert users.ids == ("a", "b", "c")
    assert users.columns == {"age": ("31", "", "")}


def test_item_and_user_files_are_optional(folder: Path) -> None:
    (folder / "toy.item").unlink()
    (folder / "toy.user").unlink()
    dataset = load_atomic(folder).dataset
    assert dataset.items.ids == dataset.items.titles == ("2", "1", "3")
    assert histories(dataset)["a"] == ["2", "1"]


def test_equal_timestamps_keep_the_order_of_the_file(tmp_path: Path) -> None:
    # 300 rows of one user: an unstable sort would not keep them all by luck.
    order = np.random.default_rng(0).permutation(300)
    write(tmp_path / "ties.inter", INTER, *(f"u\t{item}\t1\t{item % 2}" for item in order))
    expected = [str(i) for i in order if i % 2 == 0] + [str(i) for i in order if i % 2 == 1]
    assert histories(load_atomic(tmp_path).dataset)["u"] == expected


def test_rows_without_timestamps_are_in_order_already(tmp_path: Path) -> None:
    write(tmp_path / "x.inter", "user_id:token\titem_id:token", "u\t3", "u\t1", "u\t2")
    assert histories(load_atomic(tmp_path).dataset) == {"u": ["3", "1", "2"]}


def test_windows_line_ends_a_byte_order_mark_and_blank_lines_are_read(tmp_path: Path) -> None:
    write(tmp_path / "x.inter", "\ufeff" + INTER, "u\t1\t5\t2", "", "u\t2\t5\t1", "", end="\r\n")
    loaded = load_atomic(tmp_path)
    assert histories(loaded.dataset) == {"u": ["2", "1"]}
    assert loaded.report.skipped == 0


def test_quotes_and_odd_separators_in_titles_are_text(folder: Path) -> None:
    title = 'The "Best\u2028of\x85 It'
    write(folder / "toy.item", ITEM, f"1\t{title}\t1990\t", "2\tx\t1991\t")
    assert load_atomic(folder).dataset.items.titles[0] == title


BAD_ROWS = {
    "word as time": ("a\t1\t5\tnoon", "line 3, column 'timestamp': 'noon' is not a finite number"),
    "nan as time": ("a\t1\t5\tnan", "line 3, column 'timestamp': 'nan' is not a finite number"),
    "no time": ("a\t1\t5\t", "line 3, column 'timestamp': '' is not a finite number"),
    "word as float": ("a\t1\tgood\t7", "line 3, column 'rating': 'good' is not a finite number"),
    "no user": ("\t1\t5\t7", "line 3, column 'user_id': '' is empty"),
    "no item": ("a\t\t5\t7", "line 3, column 'item_id': '' is empty"),
    "too narrow": ("a\t1\t5", "line 3: 'a\\t1\\t5' has 3 columns, the header has 4"),
    "too wide": ("a\t1\t5\t7\t8", "line 3: 'a\\t1\\t5\\t7\\t8' has 5 columns, the header has 4"),
}


@pytest.mark.parametrize(("row", "complaint"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_by_file_line_column_and_value(tmp_path: Path, row: str, complaint: str) -> None:
    write(tmp_path / "x.inter", INTER, "u\t1\t5\t1", row)
    with pytest.raises(InvalidRequestError) as caught:
        load_atomic(tmp_path)
    assert str(caught.value).startswith(f"x.inter, {complaint}")


def test_bad_rows_are_left_out_counted_and_reported_when_lenient(tmp_path: Path) -> None:
    # The blank line and the narrow row must not shift the numbers of the lines after them.
    rows = ["u\t1\t5\t1", "", "a\t1", "u\t2\t5\t2", "a\t1\t5\tnoon", "a\t\tbad\t1", "u\t3\t5\t3"]
    write(tmp_path / "x.inter", INTER, *rows)
    loaded = load_atomic(tmp_path, lenient=True)
    assert histories(loaded.dataset) == {"u": ["1", "2", "3"]}
    assert (loaded.report.read, loaded.report.skipped) == (6, 3)
    assert str(loaded.report).startswith("3 of 6 rows left out: x.inter, line 4: 'a\\t1' has 2 columns")
    assert "line 6, column 'timestamp': 'noon'" in str(loaded.report)
    assert "line 7, column 'item_id': '' is empty" in str(loaded.report)


def test_broken_utf8_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_bytes(f"{INTER}\nu\t1\t5\t1\nu\t\xff\t5\t2\n".encode("latin-1"))
    with pytest.raises(InvalidRequestError, match=r"line 3, column 'item_id:token': b'\\xff' is not UTF-8"):
        load_atomic(tmp_path)
    loaded = load_atomic(tmp_path, lenient=True)
    assert histories(loaded.dataset) == {"u": ["1"]}
    assert (loaded.report.read, loaded.report.skipped) == (2, 1)


def test_an_item_described_twice_is_a_bad_row(folder: Path) -> None:
    write(folder / "toy.item", ITEM, "1\tFirst\t1990\t", "1\tSecond\t1990\t", "2\tTwo\t1990\t")
    with pytest.raises(InvalidRequestError, match=r"toy\.item, line 3, column 'item_id': '1' is there already"):
        load_atomic(folder)
    assert load_atomic(folder, lenient=True).dataset.items.titles[0] == "First"


def test_a_sequence_of_numbers_with_something_else_in_it_is_a_bad_row(folder: Path) -> None:
    write(folder / "toy.user", "user_id:token\twhere:float_seq", "a\t1.5 -2", "b\t", "c\t1.5 north")
    with pytest.raises(InvalidRequestError, match=r"toy\.user, line 4, column 'where': '1.5 north' holds"):
        load_atomic(folder)


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("user_id\titem_id:token", "'user_id' is not a typed column"),
        ("user_id:token\titem_id:word", "'item_id:word' is not a typed column"),
        ("user:token\titem_id:token", "no column 'user_id'"),
        ("a:token\ta:token", "column 'a:token' is there twice"),
        ("", "the header is empty"),
    ],
)
def test_a_wrong_header_is_an_error_even_when_lenient(tmp_path: Path, header: str, complaint: str) -> None:
    write(tmp_path / "x.inter", header, "u\t1")
    with pytest.raises(InvalidRequestError, match=complaint):
        load_atomic(tmp_path, lenient=True)


def test_a_header_alone_is_an_empty_data_set(tmp_path: Path) -> None:
    write(tmp_path / "x.inter", INTER)
    with pytest.raises(InvalidRequestError, match="holds no interactions"):
        load_atomic(tmp_path)


def test_a_folder_without_or_with_several_inter_files_asks_for_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no \.inter file"):
        load_atomic(tmp_path / "nowhere")
    write(folder / "other.inter", INTER, "z\t1\t1\t1")
    with pytest.raises(InvalidRequestError, match=r"other\.inter, toy\.inter"):
        load_atomic(folder)
    assert load_atomic(folder, "other").dataset.users.ids == ("z",)


def test_csv_columns_are_mapped_and_ids_stay_text(tmp_path: Path) -> None:
    write(tmp_path / "orders.csv", "customer,sku,at", "007,0010,2024-05-02 10:00:00", "007,1e3,2024-05-01")
    write(tmp_path / "items.csv", "sku,title,colour", '0010,"Red, ""big"" box",red|blue', "1e3,Plain,")
    mapping = ColumnMapping(user="customer", item="sku", time="at")
    dataset = load_table(tmp_path / "orders.csv", mapping, tmp_path / "items.csv").dataset
    assert histories(dataset) == {"007": ["1e3", "0010"]}
    assert dataset.items.titles == ('Red, "big" box', "Plain")
    assert dataset.items.columns == {"colour": ("red|blue", "")}


def test_times_in_several_forms_are_seconds_in_utc(tmp_path: Path) -> None:
    moments = ["2024-05-01", "2024-05-01T01:00:00Z", "2024-05-01T04:00:00+02:00", "1714532400"]
    write(tmp_path / "x.csv", "user_id,item_id,timestamp", *(f"u,{n},{moment}" for n, moment in enumerate(moments)))
    first = datetime(2024, 5, 1, tzinfo=UTC).timestamp()
    expected = [first, first + 3600, first + 7200, first + 10800]
    assert load_table(tmp_path / "x.csv").dataset.histories.timestamps.tolist() == expected


def test_a_time_that_is_none_is_named(tmp_path: Path) -> None:
    write(tmp_path / "x.csv", "user_id,item_id,timestamp", "u,1,2024-05-01", "u,2,2024-13-01")
    with pytest.raises(InvalidRequestError, match=r"x\.csv, line 3, column 'timestamp': '2024-13-01' is neither"):
        load_table(tmp_path / "x.csv")
    assert load_table(tmp_path / "x.csv", lenient=True).report.skipped == 1


def test_parquet_keeps_types_apart_and_joins_lists(tmp_path: Path) -> None:
    when = pa.array([datetime(2024, 5, 2), datetime(2024, 5, 1)], pa.timestamp("ms"))
    interactions = pa.table({"user_id": [7, 7], "item_id": [1, 2], "timestamp": when})
    items = pa.table({"item_id": [2, 1], "title": ["Two", None], "tags": [["a", "b"], []], "price": [1.5, None]})
    users = pa.table({"user_id": [7], "vip": [True]})
    for name, table in (("x", interactions), ("i", items), ("u", users)):
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    dataset = load_table(tmp_path / "x.parquet", None, tmp_path / "i.parquet", tmp_path / "u.parquet").dataset
    assert histories(dataset) == {"7": ["2", "1"]}
    assert dataset.items.titles == ("Two", "1")
    assert dataset.items.columns == {"tags": ("a|b", ""), "price": ("1.5", "")}
    assert dataset.users.columns == {"vip": ("true",)}


def test_a_bad_parquet_row_is_named_by_its_number(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["a", None], "item_id": ["1", "2"], "timestamp": [1.0, 2.0]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InvalidRequestError, match=r"x\.parquet, row 2, column 'user_id': '' is empty"):
        load_table(tmp_path / "x.parquet")


def test_a_missing_column_lists_those_there_are(tmp_path: Path) -> None:
    write(tmp_path / "x.csv", "who,what", "u,1")
    with pytest.raises(InvalidRequestError, match="no column 'user_id', only who, what"):
        load_table(tmp_path / "x.csv")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.xlsx", "nothing")
    with pytest.raises(InvalidRequestError, match=r"neither \.csv nor \.parquet"):
        load_table(tmp_path / "x.xlsx")
