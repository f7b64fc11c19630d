"""From screened rows to a `Dataset`: indexes, order, and items or users nobody described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsae.datasets.rows import RowReport
from recsae.datasets.schema import Dataset, Histories, ItemTable, UserTable
from recsae.errors import InvalidRequestError


@dataclass(frozen=True)
class Loaded:
    """A data set and what was left out of it."""

    dataset: Dataset
    report: RowReport


@dataclass(frozen=True)
class Interactions:
    """Who (text [n]) took what (text [n]) when (float64 [n]), in the order of the source."""

    users: pa.Array
    items: pa.Array
    timestamps: NDArray[np.float64]


@dataclass(frozen=True)
class Entities:
    """Described items or users: unique ids [n] and metadata columns [n], all text."""

    ids: pa.Array
    columns: Mapping[str, pa.Array]


def assemble(
    name: str,
    interactions: Interactions,
    described_items: Entities | None,
    described_users: Entities | None,
    title_column: str | None,
) -> Dataset:
    """A data set of every user and item that was interacted with.

    Index order is the order of the describing file, then of first appearance. An item without a title is called
    by its id. InvalidRequestError when there is no interaction at all.
    """
    if not len(interactions.users):
        raise InvalidRequestError(f"data set {name!r} holds no interactions; check the file and the column mapping")
    items = _index(interactions.items, described_items)
    users = _index(interactions.users, described_users)
    columns = _columns(described_items, items.rows)
    titles = columns.pop(title_column, items.ids) if title_column else items.ids
    titles = tuple(title or item_id for title, item_id in zip(titles, items.ids, strict=True))
    histories = Histories.from_rows(users.of_rows, items.of_rows + 1, interactions.timestamps, len(users.ids))
    user_table = UserTable(users.ids, _columns(described_users, users.rows))
    return Dataset(name, ItemTable(items.ids, titles, columns), user_table, histories)


@dataclass(frozen=True)
class _Index:
    """ids in index order; index int64 [n] of each interaction; row int64 of each id where described, else -1."""

    ids: tuple[str, ...]
    of_rows: NDArray[np.int64]
    rows: NDArray[np.int64]


def _index(values: pa.Array, described: Entities | None) -> _Index:
    encoded = values.dictionary_encode()
    unique = encoded.dictionary
    rows = np.full(len(unique), -1, dtype=np.int64)
    if described is not None and len(described.ids):
        rows = pc.fill_null(pc.index_in(unique, value_set=described.ids), -1).to_numpy().astype(np.int64)
    order = np.argsort(np.where(rows >= 0, rows, np.iinfo(np.int64).max), kind="stable")
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    return _Index(tuple(unique.take(pa.array(order)).to_pylist()), position[encoded.indices.to_numpy()], rows[order])


def _columns(described: Entities | None, rows: NDArray[np.int64]) -> dict[str, tuple[str, ...]]:
    if described is None:
        return {}
    wanted = pa.array(rows, mask=rows < 0)
    return {
        name: tuple(pc.fill_null(column.take(wanted), "").to_pylist()) for name, column in described.columns.items()
    }
