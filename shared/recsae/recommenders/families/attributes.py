"""What a data set knows about users and items, as inputs of a network: attributes of users, values of item columns.

Values are read the way serving reads them (`datasets.attributes`, `recommenders.inputs`), so that a network meets the
same names and numbers there. Columns a data set lacks are features a network does without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recsae.datasets.attributes import typed_column, typed_rows
from recsae.datasets.facets import FacetSpec, build_facets
from recsae.datasets.schema import Dataset, UserTable
from recsae.recommenders.description import AttributeInput
from recsae.recommenders.inputs import attribute_column, category_text

_CARRIED_BY = 5  # users who share a value, at least: a rarer one would point at people and teach nothing
_COVERED = 0.5  # share of the filled cells whose value is that common, or the column is one of names and codes
_FEW_NUMBERS = 24  # a column of no more different numbers is one of codes or bands
_BINS = 8
_INIT_STD = 0.05
_UNKNOWN = 0.1  # share of the attributes hidden in training, so that a subject without them is nothing new


def attribute_inputs(users: UserTable) -> tuple[AttributeInput, ...]:
    """The attributes worth reading, by name: numbers, and categories by their values that enough users carry."""
    found = [
        _attribute(name, [one for one in typed_column(users.columns[name]) if one is not None])
        for name in sorted(users.columns)
    ]
    return tuple(one for one in found if one is not None)


def _attribute(name: str, filled: Sequence[str | float]) -> AttributeInput | None:
    numbers = [one for one in filled if isinstance(one, float)]
    if len(set(numbers)) > _FEW_NUMBERS:
        return AttributeInput(name, "number", default=float(np.median(numbers)))
    counts = Counter(category_text(one) for one in filled)
    values = tuple(sorted(value for value, count in counts.items() if count >= _CARRIED_BY))
    covered = sum(counts[value] for value in values)
    return AttributeInput(name, "category", values) if len(values) > 1 and covered >= _COVERED * len(filled) else None


def attributes_of(users: UserTable, inputs: Sequence[AttributeInput]) -> list[Tensor]:
    """One tensor [n_users] per input: int64 indices of categories (0 = unknown) or float32 numbers."""
    rows = typed_rows({one.name: users.columns[one.name] for one in inputs}, len(users.ids))
    return [torch.from_numpy(attribute_column(one, rows)) for one in inputs]


class UserAttributes(nn.Module):
    """Attributes -> one vector [n, d]: the sum of a vector per category, and per step a number has climbed.

    A number's steps are the quantiles of `values` [n_users] of each input. Nothing is added for an unknown category.
    """

    def __init__(self, inputs: Sequence[AttributeInput], values: Sequence[Tensor], dim: int) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.zeros(dim))
        parts = [
            _Category(len(one.values), dim) if one.kind == "category" else _Number(column, dim)
            for one, column in zip(inputs, values, strict=True)
        ]
        self.parts = nn.ModuleList(parts)

    def forward(self, *values: Tensor) -> Tensor:
        """One tensor [n] per input -> [n, d]; [d] when there is no input."""
        total: Tensor = self.constant
        for part, value in zip(self.parts, values, strict=True):
            vectors = part(value)
            if self.training:
                vectors = vectors * (torch.rand(len(vectors), 1) >= _UNKNOWN)
            total = total + vectors
        return total


class _Category(nn.Module):
    def __init__(self, n_values: int, dim: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(n_values + 1, dim, padding_idx=0)
        with torch.no_grad():
            self.vectors.weight[1:].normal_(std=_INIT_STD)

    def forward(self, index: Tensor) -> Tensor:
        vectors: Tensor = self.vectors(index)
        return vectors


class _Number(nn.Module):
    steps: Tensor

    def __init__(self, values: Tensor, dim: int) -> None:
        super().__init__()
        steps = np.unique(np.quantile(values.numpy(), np.arange(1, _BINS) / _BINS))
        self.register_buffer("steps", torch.from_numpy(steps.astype(np.float32)))
        self.vectors = nn.Parameter(torch.randn(len(steps), dim) * _INIT_STD)

    def forward(self, number: Tensor) -> Tensor:
        return (number[:, None] >= self.steps).to(torch.float32) @ self.vectors


class ItemColumns(nn.Module):
    """The sum of a vector per value of an item's columns (genres, categories, decades, bins of other numbers)."""

    values: Tensor
    starts: Tensor

    def __init__(self, dataset: Dataset, dim: int) -> None:
        super().__init__()
        spec = FacetSpec(title_tokens=0, popularity_bands=0, crossed_values=0, most_crossed=0, neighbourhoods=())
        matrix = build_facets(dataset.items, dataset.histories, spec).matrix
        self.register_buffer("values", torch.from_numpy(matrix.indices.astype(np.int64)))
        self.register_buffer("starts", torch.from_numpy(matrix.indptr.astype(np.int64)))
        self.vectors = nn.EmbeddingBag(max(1, matrix.shape[1]), dim, mode="sum", include_last_offset=True)
        nn.init.normal_(self.vectors.weight, std=_INIT_STD)

    def forward(self) -> Tensor:
        """[n_items + 1, d], row 0 zero."""
        sums: Tensor = self.vectors(self.values, self.starts)
        return sums
