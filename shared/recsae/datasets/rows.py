"""Rows of a source file as text columns, and what happens to bad ones: the first is an error, or all are counted.

Every column stays text until somebody needs numbers, so an id such as "007" survives. Not here: reading files
(`delimited`, `tabular`) and what the columns mean (`atomic`, `tabular`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError

_EXAMPLES = 5
_SHOWN_CHARACTERS = 80
# What Arrow and Python agree on; "nan", "inf" and "1_000" are no numbers here.
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


@dataclass
class RowReport:
    """Rows read and rows left out, with the first few reasons."""

    read: int = 0
    skipped: int = 0
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One sentence for people."""
        reasons = f": {'; '.join(self.examples)}" if self.examples else ""
        return f"{self.skipped} of {self.read} rows left out{reasons}"


@dataclass(frozen=True)
class Rows:
    """Text columns [n] of one file; `numbers` int64 [n] say where each row stands in it (`unit`: "line" or "row")."""

    file: str
    columns: Mapping[str, pa.Array]
    numbers: NDArray[np.int64]
    unit: str = "line"

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.numbers)

    def column(self, name: str) -> pa.Array:
        """A column; InvalidRequestError lists those there are."""
        if name not in self.columns:
            raise InvalidRequestError(
                f"{self.file} has no column {name!r}, only {', '.join(self.columns)}; rename it or map it"
            )
        return self.columns[name]

    def where(self, mask: NDArray[np.bool_]) -> Rows:
        """The rows where mask [n] holds."""
        if mask.all():
            return self
        kept = {name: column.filter(pa.array(mask)) for name, column in self.columns.items()}
        return Rows(self.file, kept, self.numbers[mask], self.unit)


class Screen:
    """Sorts the bad rows out of one file, or stops at the first."""

    def __init__(self, rows: Rows, report: RowReport, *, lenient: bool) -> None:
        """`report` is added to; rows that never got this far (`delimited`) are in it already."""
        self._rows, self._report, self._lenient = rows, report, lenient
        self._good = np.ones(len(rows), dtype=bool)

    def require(self, column: str, good: NDArray[np.bool_], rule: str) -> None:
        """Rows where good [n] is false break `rule`: InvalidRequestError for the first, unless lenient."""
        for at in np.flatnonzero(~good & self._good):
            reject(
                f"{self._rows.file}, {self._rows.unit} {self._rows.numbers[at]}, column {column!r}: "
                f"{shown(self._rows.columns[column][int(at)].as_py())} {rule}",
                self._report,
                lenient=self._lenient,
            )
        self._good &= good

    def require_text(self, column: str) -> None:
        """No empty cells."""
        self.require(column, pc.not_equal(self._rows.column(column), "").to_numpy(zero_copy_only=False), "is empty")

    def require_new(self, column: str) -> None:
        """No value twice; the first row with it stays."""
        values = self._rows.column(column).dictionary_encode().indices.to_numpy()
        _, first = np.unique(values, return_index=True)
        new = np.zeros(len(values), dtype=bool)
        new[first] = True
        self.require(column, new, "is there already, in an earlier row")

    def passed(self) -> Rows:
        """The rows no rule was broken by."""
        self._report.read += len(self._rows)
        return self._rows.where(self._good)

    def mask(self) -> NDArray[np.bool_]:
        """Which rows passed so far, bool [n]."""
        return self._good


def reject(reason: str, report: RowReport, *, lenient: bool) -> None:
    """Counts a bad row, or raises InvalidRequestError when not lenient."""
    if not lenient:
        raise InvalidRequestError(f"{reason}; mend the row, or be lenient to leave such rows out")
    report.skipped += 1
    if len(report.examples) < _EXAMPLES:
        report.examples.append(reason)


def shown(value: str) -> str:
    """A cell as an error shows it: quoted and short."""
    return repr(value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…")


def as_numbers(texts: pa.Array) -> NDArray[np.float64]:
    """float64 [n] of text [n]; nan where it is no finite number."""
    try:
        numbers = texts.cast(pa.float64())
    except pa.ArrowInvalid:
        numbers = pc.if_else(pc.match_substring_regex(texts, _NUMBER), texts, "nan").cast(pa.float64())
    values: NDArray[np.float64] = numbers.to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, np.nan)


def as_seconds(texts: pa.Array) -> NDArray[np.float64]:
    """float64 [n] of times [n]: numbers as they are, ISO 8601 as seconds since 1970 (UTC unless it says otherwise).

    nan where a text is neither.
    """
    numbers = as_numbers(texts)
    rest = np.flatnonzero(np.isnan(numbers))
    if len(rest):
        numbers[rest] = _from_iso(texts.take(pa.array(rest)))
    return numbers


def _from_iso(texts: pa.Array) -> NDArray[np.float64]:
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            micros: NDArray[np.int64] = texts.cast(kind).cast(pa.int64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            continue
        return micros / 1e6
    # Mixed forms or bad cells: one by one, which only such files pay for.
    return np.array([_one_from_iso(text) for text in texts.to_pylist()], dtype=np.float64)


def _one_from_iso(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return float("nan")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
