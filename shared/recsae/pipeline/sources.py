"""Where activations come from: what the pipeline needs of a recommender, whoever serves it.

The adapter for `ActivationExporter` over gRPC is `recommender_client`; tests may serve arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SourceModel:
    """A model at one version and the hook that is read. `max_rows`: most rows of one export."""

    name: str
    version: str
    hook: str
    dim: int
    max_history: int
    item_count: int
    max_rows: int
    dot_product: bool
    all_positions: bool


@dataclass(frozen=True)
class ItemActivations:
    """Activations float32 [n, d] of single-item histories, one per item id."""

    item_ids: tuple[str, ...]
    activations: Floats


@dataclass(frozen=True)
class ItemVectors:
    """Vectors float32 [n, d] and biases float32 [n] (or None) a dot-product head scores items by."""

    item_ids: tuple[str, ...]
    vectors: Floats
    biases: Floats | None


@dataclass(frozen=True)
class RankedItems:
    """Item ids and their scores, best first."""

    item_ids: tuple[str, ...]
    scores: tuple[float, ...]


class ActivationSource(Protocol):
    """Reads activations out of a recommender."""

    def describe(self, model: str) -> SourceModel:
        """The model as it is served now."""

    def every_position(self, model: SourceModel, histories: Sequence[Sequence[str]]) -> Floats:
        """float32 [sum of lengths, d]: one row per interaction, by history, then position.

        Histories of at most `max_history` items, none empty. FailedPreconditionError when another version is served.
        """

    def last_position(self, model: SourceModel, histories: Sequence[Sequence[str]]) -> Floats:
        """float32 [n, d]: the activation serving would use, one row per history."""

    def items(self, model: SourceModel) -> Iterator[ItemActivations]:
        """Every item as a history of its own, in pages."""


class ItemSource(Protocol):
    """Reads the head of a recommender."""

    def item_vectors(self, model: SourceModel) -> ItemVectors | None:
        """Vectors of every item; None for a head that is no dot product."""

    def rank(
        self, model: SourceModel, activations: Floats, k: int, exclude: Sequence[Sequence[str]]
    ) -> list[RankedItems]:
        """For each activation [n, d] the k best items, best first, without the excluded ones."""


class ModelSource(ActivationSource, ItemSource, Protocol):
    """Both."""
