"""RecBole atomic files: `NAME.inter`, and where there are any `NAME.item` and `NAME.user`.

Tab-separated UTF-8 with a typed header such as `user_id:token	item_id:token	timestamp:float`; sequences
(`token_seq`, `float_seq`) hold their values separated by blanks, and become cells separated by "|".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from recsae.datasets.assembly import Entities, Interactions, Loaded, assemble
from recsae.datasets.delimited import read_delimited
from recsae.datasets.rows import RowReport, Rows, Screen, as_numbers
from recsae.errors import InvalidRequestError, NotFoundError

_TYPES = ("token", "token_seq", "float", "float_seq")
_TITLES = ("title", "movie_title", "name", "item_name")


@dataclass(frozen=True)
class _Typed:
    rows: Rows
    types: dict[str, str]


def load_atomic(folder: Path | str, name: str | None = None, *, lenient: bool = False) -> Loaded:
    """Reads the atomic files of a folder; `name` says which when it holds several, and names the data set.

    Rows without a timestamp column count as in order already. Errors: NotFoundError when there is no `.inter`
    file; InvalidRequestError names file, line, column and value of the first bad row, unless lenient: then bad
    rows are left out and counted in `report`.
    """
    path = _interactions_path(Path(folder), name)
    report = RowReport()
    interactions = _interactions(_read(path, report, lenient=lenient), report, lenient=lenient)
    items = _entities(path.with_suffix(".item"), "item_id", report, lenient=lenient)
    users = _entities(path.with_suffix(".user"), "user_id", report, lenient=lenient)
    title = next((column for column in _TITLES if items and column in items.columns), None)
    return Loaded(assemble(name or path.stem, interactions, items, users, title), report)


def _interactions_path(folder: Path, name: str | None) -> Path:
    if name and (folder / f"{name}.inter").is_file():
        return folder / f"{name}.inter"
    found = sorted(folder.glob("*.inter"))
    if not found:
        raise NotFoundError(f"{folder} holds no .inter file; RecBole atomic files are NAME.inter, NAME.item, NAME.user")
    if len(found) > 1:
        raise InvalidRequestError(f"{folder} holds {', '.join(p.name for p in found)}; name one of them")
    return found[0]


def _interactions(table: _Typed, report: RowReport, *, lenient: bool) -> Interactions:
    rows = table.rows
    screen = Screen(rows, report, lenient=lenient)
    screen.require_text("user_id")
    screen.require_text("item_id")
    _require_numbers(screen, table, empty_is_fine=set(table.types) - {"timestamp"})
    good = screen.mask()
    kept = screen.passed()
    times = np.arange(len(rows), dtype=np.float64)
    if "timestamp" in rows.columns:
        times = as_numbers(rows.columns["timestamp"])
    return Interactions(kept.column("user_id"), kept.column("item_id"), times[good])


def _entities(path: Path, key: str, report: RowReport, *, lenient: bool) -> Entities | None:
    if not path.is_file():
        return None
    table = _read(path, report, lenient=lenient)
    screen = Screen(table.rows, report, lenient=lenient)
    screen.require_text(key)
    screen.require_new(key)
    _require_numbers(screen, table, empty_is_fine=set(table.types))
    rows = screen.passed()
    columns = {
        name: pc.replace_substring(column, " ", "|") if _is_multi_valued(name, table.types[name]) else column
        for name, column in rows.columns.items()
        if name != key
    }
    return Entities(rows.column(key), columns)


def _require_numbers(screen: Screen, table: _Typed, empty_is_fine: set[str]) -> None:
    """Every `float` and `float_seq` cell holds finite numbers."""
    for name, kind in table.types.items():
        column = table.rows.columns[name]
        if name == "timestamp" or kind == "float":
            good = ~np.isnan(as_numbers(column))
        elif kind == "float_seq":
            lists = pc.utf8_split_whitespace(column)
            bad = np.isnan(as_numbers(pc.list_flatten(lists)))
            good = np.bincount(pc.list_parent_indices(lists).to_numpy()[bad], minlength=len(column)) == 0
        else:
            continue
        if name in empty_is_fine:
            good = good | pc.equal(column, "").to_numpy(zero_copy_only=False)
        screen.require(name, good, "is not a finite number" if kind != "float_seq" else "holds something not a number")


def _is_multi_valued(name: str, kind: str) -> bool:
    # A title is typed as a sequence of words and read as one text.
    return kind.endswith("_seq") and name not in _TITLES


def _read(path: Path, report: RowReport, *, lenient: bool) -> _Typed:
    rows = read_delimited(path, report, delimiter="\t", quoted=False, lenient=lenient)
    types = _types(path, list(rows.columns))
    columns = dict(zip(types, rows.columns.values(), strict=True))
    return _Typed(Rows(rows.file, columns, rows.numbers), types)


def _types(path: Path, header: list[str]) -> dict[str, str]:
    types = {}
    for cell in header:
        name, separator, kind = cell.rpartition(":")
        if not separator or kind not in _TYPES:
            raise InvalidRequestError(
                f"{path.name}, line 1: {cell!r} is not a typed column; write NAME:TYPE with one of {', '.join(_TYPES)}"
            )
        types[name] = kind
    return types
