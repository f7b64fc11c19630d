"""Bad rows: the first one is an error with file, line, column and value, or all are counted and reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError

_EXAMPLES = 5


@dataclass
class RowReport:
    """Rows read and rows left out, with the first few reasons."""

    read: int = 0
    skipped: int = 0
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One sentence for people."""
        return f"{self.skipped} of {self.read} rows left out" + (
            f": {'; '.join(self.examples)}" if self.examples else ""
        )


@dataclass(frozen=True)
class RowCheck:
    """Judges columns of one file; `first_line` is the line number of row 0."""

    file: Path
    first_line: int
    lenient: bool
    report: RowReport

    def apply(self, column: str, values: NDArray[np.str_], good: NDArray[np.bool_], rule: str) -> NDArray[np.bool_]:
        """Returns `good` as it is when every row is good or leniency is on; InvalidRequestError otherwise.

        `values` [n] are the raw texts of the column, `good` [n] says which rows obey `rule`.
        """
        bad = np.flatnonzero(~good)
        for row in bad[: _EXAMPLES if self.lenient else 1]:
            text = f"{self.file.name}, line {self.first_line + row}, column {column!r}: {str(values[row])!r} {rule}"
            if not self.lenient:
                raise InvalidRequestError(f"{text}; mend the row, or leave such rows out with --lenient")
            if len(self.report.examples) < _EXAMPLES:
                self.report.examples.append(text)
        return good


def as_numbers(values: NDArray[np.str_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """float64 [n] and which of them are finite numbers; the others are 0."""
    try:
        numbers = values.astype(np.float64)
    except ValueError:
        numbers = np.array([_number(value) for value in values])
    good = np.isfinite(numbers)
    return np.where(good, numbers, 0.0), good


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
