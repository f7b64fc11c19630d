"""RecBole atomic files: `NAME.inter`, and where there are any `NAME.item` and `NAME.user`.

Tab-separated text with a typed header such as `user_id:token	item_id:token	timestamp:float`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.assembly import Entities, Loaded, assemble
from recsae.datasets.rows import RowCheck, RowReport, as_numbers
from recsae.errors import InvalidRequestError, NotFoundError

_TYPES = ("token", "token_seq", "float", "float_seq")
_TITLES = ("title", "movie_title", "name", "item_name")


@dataclass(frozen=True)
class _Table:
    path: Path
    types: dict[str, str]
    columns: dict[str, NDArray[np.str_]]


def load_atomic(folder: Path | str, name: str | None = None, *, lenient: bool = False) -> Loaded:
    """Reads the atomic files of a folder; `name` is theirs without suffix when the folder holds several.

    Errors: NotFoundError when there is no `.inter` file; InvalidRequestError names file, line, column and value.
    """
    folder = Path(folder)
    path = _interactions_path(folder, name)
    stem = path.stem
    report = RowReport()
    table = _read(path, lenient, report)
    for column in ("user_id", "item_id"):
        if column not in table.columns:
            raise InvalidRequestError(f"{path.name} has no column {column!r}; it has {', '.join(table.columns)}")
    users, items = table.columns["user_id"], table.columns["item_id"]
    check = RowCheck(path, 2, lenient, report)
    good = check.apply("user_id", users, users != "", "is empty")
    good = good & check.apply("item_id", items, items != "", "is empty")
    times = np.arange(len(users), dtype=np.float64)
    if "timestamp" in table.columns:
        times, numeric = as_numbers(table.columns["timestamp"])
        good = good & check.apply("timestamp", table.columns["timestamp"], numeric, "is not a finite number")
    report.read += len(users)
    report.skipped += int((~good).sum())
    described_items = _entities(folder / f"{stem}.item", "item_id", lenient, report)
    described_users = _entities(folder / f"{stem}.user", "user_id", lenient, report)
    title = next((t for t in _TITLES if described_items and t in described_items.columns), None)
    dataset = assemble(
        name or stem, users[good], items[good], times[good], described_items, described_users, title_column=title
    )
    return Loaded(dataset, report)


def _interactions_path(folder: Path, name: str | None) -> Path:
    if name and (folder / f"{name}.inter").is_file():
        return folder / f"{name}.inter"
    found = sorted(folder.glob("*.inter"))
    if not found:
        raise NotFoundError(f"{folder} holds no .inter file; RecBole atomic files are NAME.inter, NAME.item, NAME.user")
    if len(found) > 1:
        raise InvalidRequestError(f"{folder} holds {', '.join(p.name for p in found)}; name one of them")
    return found[0]


def _entities(path: Path, key: str, lenient: bool, report: RowReport) -> Entities | None:
    if not path.is_file():
        return None
    table = _read(path, lenient, report)
    if key not in table.columns:
        raise InvalidRequestError(f"{path.name} has no column {key!r}; it has {', '.join(table.columns)}")
    for column, kind in table.types.items():
        if kind == "float":
            values = table.columns[column]
            _, numeric = as_numbers(np.where(values == "", "0", values))
            RowCheck(path, 2, lenient, report).apply(column, values, numeric, "is not a finite number")
    columns = {
        name: np.char.replace(values, " ", "|") if _is_multi_valued(name, table.types[name]) else values
        for name, values in table.columns.items()
        if name != key
    }
    return Entities(table.columns[key], columns)


def _is_multi_valued(name: str, kind: str) -> bool:
    return kind.endswith("_seq") and name not in _TITLES


def _read(path: Path, lenient: bool, report: RowReport) -> _Table:
    """Columns as text. Rows with too few or too many fields are bad rows."""
    text = path.read_text(encoding="utf-8", errors="replace")
    header, _, body = text.partition("\n")
    types = _types(path, header.rstrip("\r"))
    lines = np.array(body.splitlines(), dtype=np.str_)
    lines = lines[: len(lines) - int(len(lines) > 0 and lines[-1] == "")]
    if not len(lines):
        return _Table(path, types, {name: np.array([], dtype=np.str_) for name in types})
    fields = np.char.count(lines, "\t") + 1
    right = fields == len(types)
    rule = f"has another number of fields than the header's {len(types)}"
    RowCheck(path, 2, lenient, report).apply("(row)", lines, right, rule)
    report.skipped += int((~right).sum())
    report.read += int((~right).sum())
    cells = "\t".join(lines[right].tolist()).split("\t") if right.any() else []
    grid = np.array(cells, dtype=object).reshape(-1, len(types))
    return _Table(path, types, {name: grid[:, at].astype(np.str_) for at, name in enumerate(types)})


def _types(path: Path, header: str) -> dict[str, str]:
    types = {}
    for cell in header.split("\t"):
        name, separator, kind = cell.rpartition(":")
        if not separator or kind not in _TYPES:
            raise InvalidRequestError(
                f"{path.name}, line 1: {cell!r} is not a typed column; write NAME:TYPE with one of {', '.join(_TYPES)}"
            )
        types[name] = kind
    return types
