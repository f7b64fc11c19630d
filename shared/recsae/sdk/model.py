"""What a model has to offer to be served by the SDK, and the values it is asked with.

A model says what it is (`ModelCard`), computes activations (`ServedModel.embed`) and, if it can, ranks from them
(`Head`). Everything else of the contract is `exporting`, `ranking` and `exporter`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.recommenders.description import Hook
from recsae.rpc.limits import most_rows
from recsae.sdk.vocabulary import Indices, Users, Vocabulary
from recsae.steering.segments import Attribute

Floats = NDArray[np.float32]
HistoryOf = Callable[[str], Sequence[str]]
"""User id -> item ids, oldest first; empty for a user nobody knows."""


@dataclass(frozen=True)
class ModelCard:
    """What a model is. Its first hook is the default, and the one that can be steered and ranked from.

    `attributes` are the names it reads as features; `empty_history`: it answers for a subject without any known item;
    `max_rows` bounds the rows of one answer further than the size of a message does.
    """

    name: str
    version: str
    hooks: tuple[Hook, ...]
    items: Vocabulary
    max_history: int = 1
    family: str = ""
    titles: tuple[str, ...] = ()
    users: Users | None = None
    attributes: tuple[str, ...] = ()
    reads_history: bool = True
    empty_history: bool = False
    max_rows: int = 65_536

    def __post_init__(self) -> None:
        """Refuses what could not be served, in a sentence."""
        if not self.name or "@" in self.name:
            raise InvalidRequestError(f"a model's name is {self.name!r}; it must not be empty or hold '@'")
        if not self.hooks or self.max_history < 1:
            raise InvalidRequestError(
                f"model {self.name} has {len(self.hooks)} hooks and max_history {self.max_history}"
            )
        if self.max_rows < 1:
            raise InvalidRequestError(f"max_rows = {self.max_rows}; an answer needs room for one row at least")
        if self.titles and len(self.titles) != len(self.items):
            raise InvalidRequestError(
                f"{len(self.titles)} titles came for {len(self.items)} items; give one each or none"
            )
        if not (self.reads_history or self.users or self.attributes):
            raise InvalidRequestError(f"model {self.name} reads no history; name its users or its attributes")

    def most_rows(self, hook: Hook) -> int:
        """Most activation rows in one answer of a hook."""
        return min(self.max_rows, most_rows(hook.dim))


@dataclass(frozen=True)
class Batch:
    """Subjects as a model reads them, one per row.

    `histories` hold item indices int64, oldest first, at most `max_history`, empty where the model reads none; `users`
    int64 [n]; `candidates` int64 [n], item indices, for a hook with a row per pair.
    """

    histories: tuple[Indices, ...]
    users: Indices
    user_ids: tuple[str, ...]
    attributes: tuple[Mapping[str, Attribute], ...]
    candidates: Indices | None = None

    def __len__(self) -> int:
        return len(self.histories)

    @property
    def lengths(self) -> Indices:
        """Items of each history, int64 [n]."""
        return np.fromiter(map(len, self.histories), np.int64, len(self.histories))

    def padded(self, width: int, *, padding: int = 0, left: bool = False) -> Indices:
        """The histories as int64 [n, width], filled up at the right with `padding`, or at the left."""
        table = np.full((len(self), width), padding, dtype=np.int64)
        for row, history in zip(table, self.histories, strict=True):
            if len(history):
                row[slice(-len(history), None) if left else slice(len(history))] = history
        return table


@dataclass(frozen=True)
class DotProduct:
    """score = activation . vector + bias; float32 [items, d] and [items] in the order of `ModelCard.items`.

    Of several interests of a subject the best one counts.
    """

    vectors: Floats
    biases: Floats | None = None

    def __call__(self, x: Floats) -> Floats:
        """Scores float32 [n, items] of activations [n, d]."""
        scores: Floats = x @ self.vectors.T
        return scores if self.biases is None else scores + self.biases


@dataclass(frozen=True)
class ItemScores:
    """A head of any form: activations float32 [n, d] ([n, interests, d]) -> scores float32 [n, items]."""

    score: Callable[[Floats], Floats]


@dataclass(frozen=True)
class PairScores:
    """The head of a hook with a row per pair: activations float32 [n, d] -> scores float32 [n]."""

    score: Callable[[Floats], Floats]


Head = DotProduct | ItemScores | PairScores


class ServedModel(Protocol):
    """A model that can be read. Implementations bring their own lock where they need one."""

    @property
    def card(self) -> ModelCard:
        """What it is."""

    @property
    def head(self) -> Head | None:
        """How it scores from activations of its first hook; None when it cannot."""

    def embed(self, batch: Batch, hook: str) -> Floats:
        """Activations float32 [n, d], or [n, interests, d] of a hook with a row per interest."""

    def embed_positions(self, batch: Batch, hook: str) -> Floats | None:
        """Activations at every position of each history, float32 [n, L, d] ([n, L, interests, d]), the oldest first.

        Row t must be what `embed` gives for the history up to item t. None when the model cannot say; then every
        prefix is embedded by itself.
        """
