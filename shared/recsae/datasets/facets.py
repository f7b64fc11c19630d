"""Facets: attribute values of items (genre=Horror, decade=1980s, title token, popularity band) as one sparse matrix."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.datasets.rows import as_numbers
from recsae.datasets.schema import Histories, ItemTable

_FAMILY_NAMES = {"class": "genre", "genres": "genre", "categories": "category"}
_YEARS = (1800, 2100)
_NUMERIC_SHARE = 0.95
_WORD = re.compile(r"[A-Za-z][A-Za-z']{2,}")
_STOPWORDS = frozenset(
    _WORD.findall(
        "the and for with from that this not you your his her its our are was all into part about when one two three "
        "les une des der die das los las"
    )
)


@dataclass(frozen=True)
class FacetSpec:
    """What becomes a facet. A value must be carried by at least `min_items` items to count."""

    min_items: int = 5
    max_values_per_column: int = 200
    numeric_bins: int = 5
    title_tokens: int = 30
    popularity_bands: int = 4


@dataclass(frozen=True)
class FacetTable:
    """names, families [n_facets]; matrix float32 0/1 [n_items + 1, n_facets], row 0 = padding, all zero."""

    names: tuple[str, ...]
    families: tuple[str, ...]
    matrix: sparse.csr_matrix

    def of_family(self, family: str) -> NDArray[np.int64]:
        """Indices of the facets of one family."""
        return np.flatnonzero(np.array(self.families) == family)


def build_facets(items: ItemTable, histories: Histories, spec: FacetSpec | None = None) -> FacetTable:
    """Facets from every metadata column, from titles, and from how often items were interacted with."""
    spec = spec or FacetSpec()
    families: dict[str, list[Sequence[str]]] = {}
    for column, values in items.columns.items():
        family, per_item = _from_column(column, values, spec)
        families[family] = per_item
    families["title"] = _title_tokens(items.titles, spec)
    families["popularity"] = _popularity(items.count, histories, spec)
    names: list[str] = []
    owners: list[str] = []
    blocks = [sparse.csr_matrix((items.count + 1, 0), dtype=np.float32)]
    for family, per_item in families.items():
        kept, block = _block(per_item, spec)
        names += [f"{family}={value}" for value in kept]
        owners += [family] * len(kept)
        blocks.append(block)
    return FacetTable(tuple(names), tuple(owners), sparse.hstack(blocks, format="csr", dtype=np.float32))


def _from_column(column: str, values: Sequence[str], spec: FacetSpec) -> tuple[str, list[Sequence[str]]]:
    family = _FAMILY_NAMES.get(column, column)
    filled = np.array([value for value in values if value], dtype=np.str_)
    numbers, numeric = as_numbers(filled) if len(filled) else (np.array([]), np.array([False]))
    if numeric.mean() >= _NUMERIC_SHARE and len(np.unique(numbers)) > spec.numeric_bins:
        if _YEARS[0] <= numbers[numeric].min() and numbers[numeric].max() <= _YEARS[1]:
            return "decade", [_decade(value) for value in values]
        return family, _binned(values, numbers[numeric], spec)
    return family, [[part for part in value.split("|") if part] for value in values]


def _decade(text: str) -> list[str]:
    try:
        return [f"{int(float(text)) // 10 * 10}s"]
    except ValueError:
        return []


def _binned(values: Sequence[str], numbers: NDArray[np.float64], spec: FacetSpec) -> list[Sequence[str]]:
    """Quantile bins, named by their ends."""
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, spec.numeric_bins + 1)))
    labels = [f"{low:g}–{high:g}" for low, high in itertools.pairwise(edges)]
    parsed, good = as_numbers(np.array(values, dtype=np.str_))
    at = np.clip(np.searchsorted(edges, parsed, side="right") - 1, 0, len(labels) - 1)
    return [[labels[position]] if fine else [] for position, fine in zip(at, good, strict=True)]


def _title_tokens(titles: Sequence[str], spec: FacetSpec) -> list[Sequence[str]]:
    per_item = [sorted({word.lower() for word in _WORD.findall(title)} - _STOPWORDS) for title in titles]
    counts = Counter(token for tokens in per_item for token in tokens)
    frequent = {token for token, count in counts.most_common(spec.title_tokens) if count >= spec.min_items}
    return [[token for token in tokens if token in frequent] for tokens in per_item]


def _popularity(n_items: int, histories: Histories, spec: FacetSpec) -> list[Sequence[str]]:
    """Bands of equally many items, from 1 (rarest) to `popularity_bands` (most popular)."""
    counts = np.bincount(histories.items, minlength=n_items + 1)[1:]
    rank = np.argsort(np.argsort(counts, kind="stable"), kind="stable")
    band = 1 + rank * spec.popularity_bands // max(n_items, 1)
    return [[f"band {number} of {spec.popularity_bands}"] for number in band]


def _block(per_item: Iterable[Sequence[str]], spec: FacetSpec) -> tuple[list[str], sparse.csr_matrix]:
    listed = list(per_item)
    counts = Counter(value for values in listed for value in set(values))
    kept = [value for value, count in counts.most_common(spec.max_values_per_column) if count >= spec.min_items]
    kept = [value for value in kept if counts[value] < len(listed)]
    position = {value: at for at, value in enumerate(sorted(kept))}
    pairs = [
        (row, position[value]) for row, values in enumerate(listed, 1) for value in set(values) if value in position
    ]
    rows, columns = zip(*pairs, strict=True) if pairs else ((), ())
    shape = (len(listed) + 1, len(position))
    matrix = sparse.csr_matrix((np.ones(len(pairs), dtype=np.float32), (rows, columns)), shape=shape)
    return list(position), matrix
