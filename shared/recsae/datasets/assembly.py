"""From parsed columns to a `Dataset`: indexes, order, and items or users nobody described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.rows import RowReport
from recsae.datasets.schema import Dataset, Histories, ItemTable, UserTable
from recsae.errors import InvalidRequestError

Text = NDArray[np.str_]


@dataclass(frozen=True)
class Loaded:
    """A data set and what was left out of it."""

    dataset: Dataset
    report: RowReport


@dataclass(frozen=True)
class Entities:
    """Described items or users: ids [n] and metadata columns [n] as text."""

    ids: Text
    columns: Mapping[str, Text]


def assemble(
    name: str,
    users: Text,
    items: Text,
    timestamps: NDArray[np.float64],
    described_items: Entities | None,
    described_users: Entities | None,
    title_column: str | None,
) -> Dataset:
    """A data set from interaction columns [n] in file order.

    Only items that were interacted with get an index, in the order of the item file, then of first appearance.
    InvalidRequestError when nothing is left.
    """
    if not len(users):
        raise InvalidRequestError(f"data set {name!r} holds no interactions; check the file and the column mapping")
    item_ids, item_index, item_rows = _index(items, described_items)
    user_ids, user_index, user_rows = _index(users, described_users)
    columns = _columns(described_items, item_rows)
    titles = columns.pop(title_column, None) if title_column else None
    item_table = ItemTable(tuple(item_ids.tolist()), titles or tuple(item_ids.tolist()), columns)
    user_table = UserTable(tuple(user_ids.tolist()), _columns(described_users, user_rows))
    histories = Histories.from_rows(user_index, item_index + 1, timestamps, len(user_ids))
    return Dataset(name, item_table, user_table, histories)


def _index(values: Text, described: Entities | None) -> tuple[Text, NDArray[np.int64], NDArray[np.int64]]:
    """Unique ids in order, the index of each value, and each id's row in `described` (-1 = not described)."""
    unique, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rows = np.full(len(unique), -1, dtype=np.int64)
    if described is not None and len(described.ids):
        order = np.argsort(described.ids, kind="stable")
        at = np.searchsorted(described.ids[order], unique)
        found = order[np.minimum(at, len(order) - 1)]
        rows = np.where(described.ids[found] == unique, found, -1)
    rank = np.lexsort((first, np.where(rows >= 0, rows, np.iinfo(np.int64).max)))
    position = np.empty_like(rank)
    position[rank] = np.arange(len(rank))
    return unique[rank], position[inverse], rows[rank]


def _columns(described: Entities | None, rows: NDArray[np.int64]) -> dict[str, tuple[str, ...]]:
    if described is None:
        return {}
    return {
        name: tuple(np.where(rows >= 0, values[np.maximum(rows, 0)], "").tolist()) if len(values) else ("",) * len(rows)
        for name, values in described.columns.items()
    }
