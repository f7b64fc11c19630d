"""CSV and Parquet files with a column mapping."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from recsae.datasets.assembly import Entities, Loaded, assemble
from recsae.datasets.rows import RowCheck, RowReport, as_numbers
from recsae.errors import InvalidRequestError

_FIRST_LINE = {".csv": 2, ".parquet": 1}


@dataclass(frozen=True)
class ColumnMapping:
    """Which column of the files plays which part; `time` may be "" when the rows are in order already."""

    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    title: str = "title"


def load_table(
    interactions: Path | str,
    mapping: ColumnMapping | None = None,
    *,
    items_path: Path | str | None = None,
    users_path: Path | str | None = None,
    name: str = "data",
    lenient: bool = False,
) -> Loaded:
    """Reads interactions and, where given, items and users; several values in one cell are separated by `|`.

    Times are numbers, or dates and times Arrow recognises. InvalidRequestError names file, line, column and value
    (the row number for Parquet).
    """
    mapping = mapping or ColumnMapping()
    path, report = Path(interactions), RowReport()
    table = _read(path)
    check = RowCheck(path, _FIRST_LINE[path.suffix.lower()], lenient, report)
    users, items = _text(table, mapping.user, path), _text(table, mapping.item, path)
    good = check.apply(mapping.user, users, users != "", "is empty")
    good = good & check.apply(mapping.item, items, items != "", "is empty")
    times = np.arange(len(users), dtype=np.float64)
    if mapping.time:
        raw = _times(table, mapping.time, path)
        times, numeric = as_numbers(raw)
        good = good & check.apply(mapping.time, raw, numeric, "is neither a finite number nor a date and time")
    report.read, report.skipped = len(users), int((~good).sum())
    described_items = _entities(items_path, mapping.item)
    title = mapping.title if described_items and mapping.title in described_items.columns else None
    dataset = assemble(
        name, users[good], items[good], times[good], described_items, _entities(users_path, mapping.user), title
    )
    return Loaded(dataset, report)


def _read(path: Path) -> pa.Table:
    kind = path.suffix.lower()
    if kind not in _FIRST_LINE:
        raise InvalidRequestError(f"{path.name} is neither .csv nor .parquet; convert it or rename it")
    try:
        return pyarrow.csv.read_csv(path) if kind == ".csv" else pyarrow.parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise InvalidRequestError(f"{path.name} cannot be read: {error}") from error


def _column(table: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise InvalidRequestError(
            f"{path.name} has no column {name!r}; it has {', '.join(table.column_names)}; map it with --column"
        )
    return table.column(name)


def _text(table: pa.Table, name: str, path: Path) -> NDArray[np.str_]:
    return _as_text(_column(table, name, path))


def _times(table: pa.Table, name: str, path: Path) -> NDArray[np.str_]:
    column = _column(table, name, path)
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(column.type):
        column = pc.divide(column.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.float64()), 1e6)
    return _as_text(column)


def _as_text(column: pa.ChunkedArray) -> NDArray[np.str_]:
    texts = pc.fill_null(column.cast(pa.string()), "")
    return np.asarray(texts.to_numpy(zero_copy_only=False), dtype=np.str_)


def _entities(path: Path | str | None, key: str) -> Entities | None:
    if path is None:
        return None
    path = Path(path)
    table = _read(path)
    columns = {name: _as_text(table.column(name)) for name in table.column_names if name != key}
    return Entities(_text(table, key, path), columns)
