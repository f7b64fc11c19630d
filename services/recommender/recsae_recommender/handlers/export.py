"""Use case: activations in bulk, the way out for SAE training. Pages are resumable by cursor and hold no state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.recommenders.description import Hook
from recsae.recommenders.inputs import ModelInputs
from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.deadline import Deadline
from recsae.rpc.limits import MOST_ITEM_IDS, at_most, check_time
from recsae_recommender.handlers.sources import (
    GivenSubjects,
    ItemPage,
    Source,
    UserPage,
    given_sources,
    item_sources,
    most_rows,
    user_sources,
)
from recsae_recommender.models import ModelTable, ServedModel

# Subjects per run of the graph: larger ones gain nothing and hold memory.
_RUN_ROWS = 64


@dataclass(frozen=True)
class ExportQuery:
    """Which activations; `candidates` of a hook with a row per pair, empty = the newest item of each history."""

    source: GivenSubjects | UserPage | ItemPage
    model: str = ""
    model_version: str = ""
    hook: str = ""
    all_positions: bool = False
    candidates: Sequence[str] = ()
    deadline: Deadline = field(default_factory=Deadline)


@dataclass(frozen=True)
class ExportRow:
    """The subject of one row; `position` counts the known items of the whole history consumed, from 1."""

    user_id: str = ""
    item_id: str = ""
    position: int = 0
    history_index: int = 0
    interest: int = 0


@dataclass(frozen=True)
class ExportPage:
    """Activations float32 [n, d], a subject per row, and the cursor of the next page ("" = the last)."""

    recommender: OnnxRecommender
    hook: Hook
    activations: NDArray[np.float32]
    rows: list[ExportRow]
    passthrough: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    next_cursor: str = ""


class ExportHandler:
    """Computes pages of activations."""

    def __init__(self, models: ModelTable) -> None:
        """Keeps its collaborator."""
        self._models = models

    def __call__(self, query: ExportQuery) -> ExportPage:
        """One page; InvalidRequestError, FailedPreconditionError and DeadlineExceededError as they say."""
        model = self._models.get(query.model, query.model_version)
        recommender = model.recommender
        hook = recommender.hook(query.hook)
        if query.all_positions and not hook.all_positions:
            raise FailedPreconditionError(
                f"hook {hook.name!r} of model {recommender.name} exports the last position only; ask for POSITIONS_LAST"
            )
        export = _Export(recommender, hook, query.all_positions, _candidates(recommender, hook, query))
        sources, cursor = _sources(model, query, export)
        if not recommender.reads.history and isinstance(query.source, ItemPage):
            return ExportPage(recommender, hook, *_item_vectors(recommender, hook, sources), next_cursor=cursor)
        activations, rows, passthrough = export.compute(sources, query.deadline)
        return ExportPage(recommender, hook, activations, rows, passthrough, cursor)


@dataclass(frozen=True)
class _Export:
    """How subjects become rows. `candidates` int64 [c] are paired with each of them; None = each history's newest."""

    recommender: OnnxRecommender
    hook: Hook
    all_positions: bool
    candidates: NDArray[np.int64] | None

    def rows_of(self, source: Source) -> int:
        """Rows of one subject."""
        if self.candidates is not None:
            return len(self.candidates)
        positions = min(len(source.indices), self.recommender.max_history) if self.all_positions else 1
        return positions * self.hook.interests

    @property
    def most_rows_per_subject(self) -> int:
        """Rows of the longest history."""
        if self.candidates is not None:
            return max(1, len(self.candidates))
        return (self.recommender.max_history if self.all_positions else 1) * self.hook.interests

    def compute(
        self, sources: list[Source], deadline: Deadline
    ) -> tuple[NDArray[np.float32], list[ExportRow], dict[str, NDArray[Any]]]:
        """Activations, subjects and pass-through tensors of all rows, in order."""
        activations = [np.zeros((0, self.hook.dim), dtype=np.float32)]
        passthrough: dict[str, list[NDArray[Any]]] = {}
        rows: list[ExportRow] = []
        for start in range(0, len(sources), _RUN_ROWS):
            check_time(deadline)
            run = sources[start : start + _RUN_ROWS]
            inputs = self.recommender.inputs(
                [one.indices for one in run], [one.known_as for one in run], [one.attributes for one in run]
            )
            if self.all_positions:
                activations += self._positions(run, inputs)
            else:
                found, crossing = self._last(run, inputs)
                activations.append(found)
                for name, tensor in crossing.items():
                    passthrough.setdefault(name, []).append(tensor)
            rows += [row for source in run for row in self._subjects(source)]
        joined = {name: np.concatenate(parts) for name, parts in passthrough.items()}
        return np.concatenate(activations), rows, joined

    def _positions(self, run: list[Source], inputs: ModelInputs) -> Iterator[NDArray[np.float32]]:
        every = self.recommender.embed_positions(inputs, hook=self.hook.name)
        # Right-padded: the real positions of a row are its first ones.
        return (
            row[: min(len(source.indices), len(row))].reshape(-1, self.hook.dim)
            for source, row in zip(run, every, strict=True)
        )

    def _last(self, run: list[Source], inputs: ModelInputs) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
        """One row per subject, interest or candidate, and what crosses with them."""
        if self.candidates is not None:
            every = np.tile(self.candidates, (len(inputs), 1))
            embedded = self.recommender.embed_pairs(inputs, every, hook=self.hook.name)
            crossing = {name: one.reshape(-1, *one.shape[2:]) for name, one in embedded.passthrough.items()}
        else:
            embedded = self.recommender.embed(inputs, hook=self.hook.name, candidates=self._newest(run))
            crossing = {name: np.repeat(one, self.hook.interests, axis=0) for name, one in embedded.passthrough.items()}
        return embedded.activation.reshape(-1, self.hook.dim), crossing

    def _newest(self, run: list[Source]) -> NDArray[np.int64] | None:
        """The candidates of pairs where the model reads no history that the newest item could be taken from."""
        if self.hook.rows != "pair" or self.recommender.reads.history:
            return None
        return np.array([source.indices[-1] for source in run], np.int64)

    def _subjects(self, source: Source) -> Iterator[ExportRow]:
        length, pair = len(source.indices), self.hook.rows == "pair"
        ids = self.recommender.bundle.item_ids
        if self.candidates is not None:
            for index in self.candidates.tolist():
                yield ExportRow(source.user_id, ids[index - 1], length, source.history_index)
            return
        first = max(length - self.recommender.max_history, 0) + 1 if self.all_positions else length
        for position in range(first, length + 1):
            item = ids[int(source.indices[position - 1]) - 1] if pair else source.item_id
            for interest in range(self.hook.interests):
                yield ExportRow(source.user_id, item, position, source.history_index, interest)


def _sources(model: ServedModel, query: ExportQuery, export: _Export) -> tuple[list[Source], str]:
    recommender, subjects = model.recommender, model.subjects
    match query.source:
        case GivenSubjects(given):
            sources = given_sources(recommender, subjects, given)
            rows = sum(export.rows_of(source) for source in sources)
            if rows > most_rows(recommender):
                raise InvalidRequestError(
                    f"{rows} rows would come back, the most is {most_rows(recommender)}; send fewer histories or "
                    "candidates"
                )
            return sources, ""
        case UserPage() as page:
            return user_sources(recommender, subjects, page, export.most_rows_per_subject, query.deadline)
        case ItemPage() as page:
            return item_sources(recommender, page)


def _candidates(recommender: OnnxRecommender, hook: Hook, query: ExportQuery) -> NDArray[np.int64] | None:
    if not query.candidates:
        return None
    if hook.rows != "pair" or query.all_positions or isinstance(query.source, ItemPage):
        raise InvalidRequestError(
            f"candidates go with the last position of users or histories, at a hook with a row per pair; hook "
            f"{hook.name!r} of model {recommender.name} has a row per {hook.rows}"
        )
    at_most(len(query.candidates), MOST_ITEM_IDS, "candidates")
    return recommender.bundle.index_of(query.candidates)


def _item_vectors(
    recommender: OnnxRecommender, hook: Hook, sources: list[Source]
) -> tuple[NDArray[np.float32], list[ExportRow]]:
    """Vectors that score users, in the space of their activations: the item side of a model that reads no history."""
    vectors = recommender.item_vectors
    if vectors is None or hook is not recommender.hooks[0]:
        raise FailedPreconditionError(
            f"model {recommender.name} reads no history, and its items have no vectors at hook {hook.name!r}; "
            "export users"
        )
    index = np.array([source.indices[0] for source in sources], np.int64)
    return vectors[index], [ExportRow(item_id=one.item_id, history_index=one.history_index) for one in sources]
