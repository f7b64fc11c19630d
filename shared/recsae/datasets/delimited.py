"""Reads delimited text into `Rows`: every column as text, rows of the wrong width and broken UTF-8 as bad rows."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from recsae.datasets.rows import RowReport, Rows, reject, shown
from recsae.errors import InvalidRequestError, NotFoundError


def read_delimited(path: Path, report: RowReport, *, delimiter: str, quoted: bool, lenient: bool) -> Rows:
    """Rows of a text file with a header line.

    `quoted` = cells may stand in double quotes (CSV); line numbers then count rows, since a quoted cell may hold
    line ends. Empty lines are passed over. InvalidRequestError names file and line of a bad row unless lenient.
    """
    names = _header(path, delimiter, quoted)
    skipped: list[tuple[int, str, int]] = []

    def on_bad_row(row: pyarrow.csv.InvalidRow) -> str:
        # An error raised here would be lost in Arrow.
        skipped.append((row.number, shown(row.text.strip("\r")), row.actual_columns))
        return "skip"

    table = _parse(path, names, delimiter, quoted, on_bad_row)
    for number, text, width in skipped:
        if text != shown(""):
            report.read += 1
            reason = f"{path.name}, line {number}: {text} has {width} columns, the header has {len(names)}"
            reject(reason, report, lenient=lenient)
    every = np.arange(2, 2 + table.num_rows + len(skipped))
    numbers = np.delete(every, [number - 2 for number, _, _ in skipped])
    columns = {name: table.column(name).combine_chunks() for name in names}
    filled = np.zeros(len(numbers), dtype=bool)
    for column in columns.values():
        filled |= pc.not_equal(column, b"").to_numpy(zero_copy_only=False)
    return _decoded(Rows(path.name, columns, numbers).where(filled), report, lenient=lenient)


def _header(path: Path, delimiter: str, quoted: bool) -> list[str]:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        line = stream.readline().rstrip("\r\n")
    if not line:
        raise InvalidRequestError(f"{path.name}, line 1: the header is empty; the first line names the columns")
    names = next(csv.reader([line], delimiter=delimiter)) if quoted else line.split(delimiter)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequestError(f"{path.name}, line 1: column {twice!r} is there twice; rename one of them")
    return names


def _parse(
    path: Path, names: list[str], delimiter: str, quoted: bool, on_bad_row: Callable[[pyarrow.csv.InvalidRow], str]
) -> pa.Table:
    with path.open("rb") as stream:
        if path.stat().st_size == len(stream.readline()):  # Arrow takes a header alone for an error
            return pa.table({name: pa.array([], pa.binary()) for name in names})
    try:
        return pyarrow.csv.read_csv(
            path,
            # Row numbers of bad rows are known to a sequential reader only.
            read_options=pyarrow.csv.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if quoted else False,
                double_quote=quoted,
                newlines_in_values=quoted,
                ignore_empty_lines=False,
                invalid_row_handler=on_bad_row,
            ),
            # Bytes first: Arrow would name neither line nor value of broken UTF-8.
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise InvalidRequestError(f"{path.name} cannot be read: {error}") from error


def _decoded(rows: Rows, report: RowReport, *, lenient: bool) -> Rows:
    try:
        columns = {name: column.cast(pa.string()) for name, column in rows.columns.items()}
        return Rows(rows.file, columns, rows.numbers, rows.unit)
    except pa.ArrowInvalid:
        good = np.ones(len(rows), dtype=bool)
        for name, column in rows.columns.items():
            for at in np.flatnonzero(good):
                if not _is_utf8(column[int(at)].as_py()):
                    good[at] = False
                    where = f"{rows.file}, {rows.unit} {rows.numbers[at]}, column {name!r}"
                    reject(f"{where}: {column[int(at)].as_py()[:80]!r} is not UTF-8", report, lenient=lenient)
        report.read += int((~good).sum())
        return _decoded(rows.where(good), report, lenient=lenient)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
