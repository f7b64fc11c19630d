"""Facets: attribute values of items (genre=Horror, decade=1980s, title token, popularity band) as one sparse matrix.

Beside single values stand pairs of them ("decade=1980s ∩ genre=Horror") and groups of items that are consumed together
("like=Alien; Aliens", see `neighbourhoods`).
"""

from __future__ import annotations

import itertools
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.datasets.attributes import as_number
from recsae.datasets.facet_names import BOTH, CROSSED, LIKE
from recsae.datasets.neighbourhoods import neighbourhoods
from recsae.datasets.schema import Histories, ItemTable
from recsae.errors import InvalidRequestError

_FAMILY_NAMES = {"class": "genre", "genres": "genre", "categories": "category"}
_YEARS = (1800, 2100)
_NAMED_AFTER, _NAME_LENGTH = 2, 40
# Share of filled cells that make a column one of numbers; the rest ("unknown") carries no facet.
_NUMERIC_SHARE = 0.95
_WORD = re.compile(r"[^\W\d_][^\W\d_']{2,}")
_STOPWORDS = frozenset(
    _WORD.findall(
        "the and for with from that this not you your his her its our are was all into part about when one two three "
        "les une des der die das los las"
    )
)

ValuesOfItems = list[Sequence[str]]


@dataclass(frozen=True)
class FacetSpec:
    """What becomes a facet.

    A value counts when at least `min_items` items carry it, and not all; of each family the most carried
    `max_values_per_column` are kept. `columns` names the metadata columns to use (None = all). Columns of years
    become decades, other columns of numbers `numeric_bins` quantile bins, the rest values separated by "|".
    0 `title_tokens` or `popularity_bands` = no such family (4 bands = quartiles, 10 = deciles). Values of columns with
    at most `crossed_values` of them are also paired with each other, the `most_crossed` pairs that most items carry.
    `neighbourhoods` are how many groups items consumed together are cut into, coarse and fine.
    """

    min_items: int = 5
    max_values_per_column: int = 200
    numeric_bins: int = 5
    title_tokens: int = 30
    popularity_bands: int = 4
    columns: tuple[str, ...] | None = None
    crossed_values: int = 30
    most_crossed: int = 200
    neighbourhoods: tuple[int, ...] = (24, 96)


@dataclass(frozen=True)
class FacetTable:
    """names, families [n_facets]; matrix float32 0/1 [n_items + 1, n_facets], row 0 = padding, all zero."""

    names: tuple[str, ...]
    families: tuple[str, ...]
    matrix: sparse.csr_matrix

    def of_family(self, family: str) -> NDArray[np.int64]:
        """Indices of the facets of one family."""
        return np.flatnonzero(np.array(self.families) == family)


def parts_of(facet: str) -> tuple[str, ...]:
    """The values a facet's name holds: two for a pair, itself for any other."""
    return tuple(facet.split(BOTH))


def is_made(facet: str) -> bool:
    """True for a pair of values or a group of items consumed together, False for a value the data hold."""
    return BOTH in facet or facet.startswith(f"{LIKE}=")


def build_facets(
    items: ItemTable, histories: Histories, spec: FacetSpec | None = None, together: Histories | None = None
) -> FacetTable:
    """Facets from metadata columns, from titles, from how often items were interacted with, and with which others.

    `together` are the histories that groups of items are learnt from, None = no such facets: leave users out of it on
    whom labels are tested. The order of the facets depends on the data alone. InvalidRequestError for a column there is
    not.
    """
    spec = spec or FacetSpec()
    if spec.columns and (missing := [column for column in spec.columns if column not in items.columns]):
        raise InvalidRequestError(f"items have no column {missing[0]!r}, only {', '.join(items.columns)}")
    families: dict[str, ValuesOfItems] = {}
    if spec.title_tokens:
        families["title"] = _title_tokens(items.titles, spec)
    if spec.popularity_bands:
        families["popularity"] = _popularity(items.count, histories, spec)
    for column in items.columns if spec.columns is None else spec.columns:
        family, values = _from_column(column, items.columns[column], spec)
        # Two columns may ask for one name (two columns of years), or one for that of a made family: it keeps its own.
        taken = family in families or family in (CROSSED, LIKE)
        families[f"{column} {family}" if taken else family] = values
    columns = set(families) - {"title", "popularity"}
    names: list[str] = []
    owners: list[str] = []
    blocks = [sparse.csr_matrix((items.count + 1, 0), dtype=np.float32)]
    for family, values in sorted(families.items()):
        kept, block = _block(values, spec)
        names += [f"{family}={value}" for value in kept]
        owners += [family] * len(kept)
        blocks.append(block)
    single = sparse.csc_matrix(sparse.hstack(blocks), dtype=np.float32)
    pairs, crossed = _crossed(names, owners, single, columns, spec)
    groups, members = _groups(items, together, spec)
    names, owners = [*names, *pairs, *groups], [*owners, *[CROSSED] * len(pairs), *[LIKE] * len(groups)]
    blocks = [single, crossed, members]
    return FacetTable(tuple(names), tuple(owners), sparse.csr_matrix(sparse.hstack(blocks), dtype=np.float32))


def _from_column(column: str, cells: Sequence[str], spec: FacetSpec) -> tuple[str, ValuesOfItems]:
    numbers = [as_number(cell) for cell in cells]
    known = np.array([number for number in numbers if number is not None])
    filled = sum(1 for cell in cells if cell)
    if len(known) and len(known) >= _NUMERIC_SHARE * filled and len(np.unique(known)) > spec.numeric_bins:
        if _YEARS[0] <= known.min() and known.max() <= _YEARS[1]:
            return "decade", [[] if number is None else [f"{int(number) // 10 * 10}s"] for number in numbers]
        return _FAMILY_NAMES.get(column, column), _binned(numbers, known, spec.numeric_bins)
    return _FAMILY_NAMES.get(column, column), [[part for part in cell.split("|") if part] for cell in cells]


def _binned(numbers: Sequence[float | None], known: NDArray[np.float64], n_bins: int) -> ValuesOfItems:
    """Quantile bins, named by their ends; the lower end belongs to a bin, the highest value to the last."""
    edges = np.unique(np.quantile(known, np.linspace(0, 1, n_bins + 1)))
    labels = [f"{low:g}–{high:g}" for low, high in itertools.pairwise(edges)]
    return [
        [] if number is None else [labels[min(int(np.searchsorted(edges, number, side="right")), len(labels)) - 1]]
        for number in numbers
    ]


def _title_tokens(titles: Sequence[str], spec: FacetSpec) -> ValuesOfItems:
    tokens = [sorted({word.lower() for word in _WORD.findall(title)} - _STOPWORDS) for title in titles]
    frequent = set(_most_carried(tokens, spec.title_tokens, spec.min_items))
    return [[token for token in per_item if token in frequent] for per_item in tokens]


def _popularity(n_items: int, histories: Histories, spec: FacetSpec) -> ValuesOfItems:
    """Bands from 1 (rarest) up, of about equally many items; items with equal counts share a band."""
    counts = np.bincount(histories.items, minlength=n_items + 1)[1:]
    # Mid-rank of each count among all, in [0, 1).
    below = np.searchsorted(np.sort(counts), counts, side="left")
    upto = np.searchsorted(np.sort(counts), counts, side="right")
    bands = 1 + ((below + upto) / 2 / max(n_items, 1) * spec.popularity_bands).astype(np.int64)
    return [[f"band {min(int(band), spec.popularity_bands)} of {spec.popularity_bands}"] for band in bands]


def _crossed(
    names: Sequence[str], owners: Sequence[str], single: sparse.csc_matrix, columns: set[str], spec: FacetSpec
) -> tuple[list[str], sparse.csc_matrix]:
    """Pairs of values that enough items carry both of, and fewer than carry either."""
    sizes = Counter(owners)
    usable = [at for at, family in enumerate(owners) if family in columns and sizes[family] <= spec.crossed_values]
    part = single[:, usable]
    both = sparse.triu(part.T @ part, k=1).tocoo()
    alone = np.asarray(part.sum(axis=0)).ravel()
    kept = (both.data >= max(spec.min_items, 2)) & (both.data < np.minimum(alone[both.row], alone[both.col]))
    order = np.lexsort((both.col[kept], both.row[kept], -both.data[kept]))[: spec.most_crossed]
    left, right = both.row[kept][order], both.col[kept][order]
    titles = [f"{names[usable[a]]}{BOTH}{names[usable[b]]}" for a, b in zip(left.tolist(), right.tolist(), strict=True)]
    return titles, part[:, left].multiply(part[:, right]).tocsc()


def _groups(items: ItemTable, together: Histories | None, spec: FacetSpec) -> tuple[list[str], sparse.csc_matrix]:
    """Groups of items consumed together, named after their two most typical members."""
    names: list[str] = []
    rows: list[NDArray[np.int64]] = []
    for count in spec.neighbourhoods if together is not None else ():
        for group in neighbourhoods(together, items.count, count) if together is not None else ():
            typical = [items.titles[item - 1] or items.ids[item - 1] for item in group.members[:_NAMED_AFTER].tolist()]
            name = f"{LIKE}={'; '.join(textwrap.shorten(title, _NAME_LENGTH, placeholder='…') for title in typical)}"
            if name not in names:
                names.append(name)
                rows.append(group.members)
    columns = np.repeat(np.arange(len(rows)), [len(members) for members in rows]).astype(np.int64)
    flat = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    shape = (items.count + 1, len(rows))
    return names, sparse.csc_matrix((np.ones(len(flat), np.float32), (flat, columns)), shape=shape)


def _block(values: ValuesOfItems, spec: FacetSpec) -> tuple[list[str], sparse.csr_matrix]:
    kept = sorted(_most_carried(values, spec.max_values_per_column, spec.min_items))
    position = {value: at for at, value in enumerate(kept)}
    pairs = [(row, position[value]) for row, per in enumerate(values, 1) for value in set(per) if value in position]
    rows, columns = zip(*pairs, strict=True) if pairs else ((), ())
    shape = (len(values) + 1, len(kept))
    return kept, sparse.csr_matrix((np.ones(len(pairs), dtype=np.float32), (rows, columns)), shape=shape)


def _most_carried(values: Sequence[Sequence[str]], most: int, min_items: int) -> list[str]:
    """The `most` values that most items carry, equal counts by name; not those of too few items or of all."""
    counts = Counter(value for per_item in values for value in set(per_item))
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    return [value for value in ranked if min_items <= counts[value] < len(values)][:most]
