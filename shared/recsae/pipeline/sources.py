"""Where activations come from: what the pipeline needs of a recommender, whoever serves it.

The adapter for `ActivationExporter` over gRPC is `recommender_client`; tests may serve arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError

Floats = NDArray[np.float32]
Tensors = Mapping[str, NDArray[Any]]

# A label asks about forty items at most (`recsae.concepts.features`).
_DESCRIBED = 50

SUBJECT, INTEREST, PAIR = "subject", "interest", "pair"


class CannotRankError(FailedPreconditionError):
    """The recommender exports activations and ranks nothing: rankings are not measured then, all else is."""


@dataclass(frozen=True)
class Subject:
    """Whom an activation is of: item ids, oldest first, and what else a model may read about somebody.

    `user_id` is the data set's pseudonym; a recommender that holds the key knows whose it is, and its attributes.
    """

    history: tuple[str, ...] = ()
    user_id: str = ""
    attributes: Mapping[str, str | float | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceModel:
    """A model at one version and the hook that is read.

    `name` is the address the platform files everything under: `base`, the model's own name, for its first hook,
    "base@hook" for another. `max_rows`: most rows of one export. `rows` says what a row is: "subject", "interest"
    (`interests` of them per subject, `dim` numbers each) or "pair" (a subject and one item). `steerable`: the model's
    `Rank` goes on from this hook; `dot_product`: it does so by a dot product with item vectors.
    """

    name: str
    version: str
    hook: str
    dim: int
    max_history: int
    item_count: int
    max_rows: int
    dot_product: bool
    all_positions: bool
    rows: str = SUBJECT
    interests: int = 1
    ignores_history: bool = False
    reads_user_id: bool = False
    attributes: tuple[str, ...] = ()
    steerable: bool = True
    base: str = ""

    @property
    def served_as(self) -> str:
        """The model's own name."""
        return self.base or self.name

    @property
    def row_length(self) -> int:
        """Numbers of one row of a shard: all interests of a subject lie in one."""
        return self.dim * self.interests

    @property
    def reads_history_alone(self) -> bool:
        """True when nothing but the history makes an activation: then nobody need be named."""
        return not (self.ignores_history or self.reads_user_id or self.attributes)

    @property
    def row_per_user(self) -> bool:
        """True when a user has one activation, whatever the history; a pair's item makes one of each interaction."""
        return self.ignores_history and self.rows != PAIR

    @property
    def described_history(self) -> int:
        """Newest items that describe a subject: those the model reads, or, where it reads none, enough for a label."""
        return max(self.max_history, _DESCRIBED) if self.ignores_history else self.max_history

    @property
    def items_beside_users(self) -> bool:
        """True when items lie in the same space as users and stand beside them as subjects of their own."""
        return self.row_per_user and self.dot_product


@dataclass(frozen=True)
class ItemActivations:
    """Activations float32 [n, interests * d] of single-item histories, one row per item id."""

    item_ids: tuple[str, ...]
    activations: Floats


@dataclass(frozen=True)
class ItemVectors:
    """Vectors float32 [n, d] and biases float32 [n] (or None) a dot-product head scores items by."""

    item_ids: tuple[str, ...]
    vectors: Floats
    biases: Floats | None


@dataclass(frozen=True)
class Crossing:
    """All that crosses the cut between trunk and head.

    `activations` float32 [n, interests * d], or [n * candidates, d] of pairs, by subject, then candidate; `passthrough`
    tensors by name, with as many rows as there are activation rows ([n * interests, ...] for interests).
    """

    activations: Floats
    passthrough: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class RankedItems:
    """Item ids and their scores, best first."""

    item_ids: tuple[str, ...]
    scores: tuple[float, ...]


class ActivationSource(Protocol):
    """Reads activations out of a recommender."""

    def describe(self, model: str) -> SourceModel:
        """The model and hook of an address as they are served now."""

    def every_position(self, model: SourceModel, subjects: Sequence[Subject]) -> Floats:
        """float32 [sum of lengths, interests * d]: one row per interaction, by history, then position.

        Histories of at most `max_history` items, none empty. FailedPreconditionError when another version is served.
        """

    def last_position(self, model: SourceModel, subjects: Sequence[Subject]) -> Floats:
        """float32 [n, interests * d]: the activation serving would use, one row per subject.

        Of a hook with a row per pair: the newest item with the history before it.
        """

    def items(self, model: SourceModel) -> Iterator[ItemActivations]:
        """Every item as a history of its own, in pages; its vector where the model reads no history."""


class ItemSource(Protocol):
    """Reads the head of a recommender."""

    def item_ids(self, model: SourceModel) -> tuple[str, ...]:
        """Ids of all items the model knows."""

    def item_vectors(self, model: SourceModel) -> ItemVectors | None:
        """Vectors of every item; None for a head that is no dot product."""

    def crossing(self, model: SourceModel, subjects: Sequence[Subject], candidates: Sequence[str] = ()) -> Crossing:
        """What `rank` goes on from; every subject with every one of `candidates` where a row is a pair."""

    def rank(
        self,
        model: SourceModel,
        activations: Floats,
        k: int,
        exclude: Sequence[Sequence[str]],
        candidates: Sequence[str] = (),
        passthrough: Tensors | None = None,
    ) -> list[RankedItems]:
        """The k best items for each of `exclude`, best first, without the items it names.

        `activations` float32 [n * rows, d]: a list's rows follow each other, one; or `interests`; or one for each of
        `candidates`, which are the same for all lists. `passthrough`: what crossed the cut with them. CannotRankError
        when the recommender does not implement it.
        """


class ModelSource(ActivationSource, ItemSource, Protocol):
    """Both."""
