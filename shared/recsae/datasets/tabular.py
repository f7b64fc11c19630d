"""CSV and Parquet files with a column mapping. Several values in one metadata cell are separated by "|"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from recsae.datasets.assembly import Entities, Interactions, Loaded, assemble
from recsae.datasets.delimited import read_delimited
from recsae.datasets.rows import RowReport, Rows, Screen, as_seconds
from recsae.errors import InvalidRequestError, NotFoundError


@dataclass(frozen=True)
class ColumnMapping:
    """Which column of the files plays which part; `time` may be "" when the rows are in order already."""

    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    title: str = "title"


def load_table(
    interactions_path: Path | str,
    mapping: ColumnMapping | None = None,
    items_path: Path | str | None = None,
    users_path: Path | str | None = None,
    *,
    name: str = "data",
    lenient: bool = False,
) -> Loaded:
    """Reads interactions and, where given, items and users.

    Times are numbers, or dates and times (ISO 8601 in CSV; UTC where no zone is given), which become seconds.
    InvalidRequestError names file, line (row for Parquet), column and value of the first bad row, unless lenient:
    then bad rows are left out and counted in `report`.
    """
    mapping = mapping or ColumnMapping()
    report = RowReport()
    rows = _read(Path(interactions_path), report, lenient=lenient)
    interactions = _interactions(rows, mapping, report, lenient=lenient)
    items = _entities(items_path, mapping.item, report, lenient=lenient)
    users = _entities(users_path, mapping.user, report, lenient=lenient)
    title = mapping.title if items and mapping.title in items.columns else None
    return Loaded(assemble(name, interactions, items, users, title), report)


def _interactions(rows: Rows, mapping: ColumnMapping, report: RowReport, *, lenient: bool) -> Interactions:
    screen = Screen(rows, report, lenient=lenient)
    screen.require_text(mapping.user)
    screen.require_text(mapping.item)
    times = np.arange(len(rows), dtype=np.float64)
    if mapping.time:
        times = as_seconds(rows.column(mapping.time))
        screen.require(mapping.time, ~np.isnan(times), "is neither a finite number nor a date and time")
    good = screen.mask()
    kept = screen.passed()
    return Interactions(kept.column(mapping.user), kept.column(mapping.item), times[good])


def _entities(path: Path | str | None, key: str, report: RowReport, *, lenient: bool) -> Entities | None:
    if path is None:
        return None
    rows = _read(Path(path), report, lenient=lenient)
    screen = Screen(rows, report, lenient=lenient)
    screen.require_text(key)
    screen.require_new(key)
    kept = screen.passed()
    return Entities(kept.column(key), {name: column for name, column in kept.columns.items() if name != key})


def _read(path: Path, report: RowReport, *, lenient: bool) -> Rows:
    kind = path.suffix.lower()
    if kind == ".csv":
        return read_delimited(path, report, delimiter=",", quoted=True, lenient=lenient)
    if kind != ".parquet":
        raise InvalidRequestError(f"{path.name} is neither .csv nor .parquet; convert it or rename it")
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    try:
        table = pyarrow.parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise InvalidRequestError(f"{path.name} cannot be read: {error}") from error
    columns = {name: _as_text(table.column(name).combine_chunks(), name, path) for name in table.column_names}
    return Rows(path.name, columns, np.arange(1, table.num_rows + 1), unit="row")


def _as_text(column: pa.Array, name: str, path: Path) -> pa.Array:
    """A Parquet column as text: lists joined with "|", times as seconds, null as ""."""
    kind = column.type
    if pa.types.is_date(kind):
        kind = pa.timestamp("s")
        column = column.cast(kind)
    if pa.types.is_timestamp(kind):
        column = pc.divide(column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64()).cast(pa.float64()), 1e6)
    try:
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return pc.fill_null(pc.binary_join(column.cast(pa.list_(pa.string())), "|"), "")
        return pc.fill_null(column.cast(pa.string()), "")
    except pa.ArrowException as error:
        raise InvalidRequestError(f"{path.name}, column {name!r}: {kind} is not text, number or time") from error
