"""Use case: activations in bulk, the way out for SAE training. Pages are resumable by cursor and hold no state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.recommenders.runtime import OnnxRecommender
from recsae_recommender.handlers.hooks import check_hook
from recsae_recommender.models import ModelTable
from recsae_recommender.subjects import SubjectReader

_MOST_ROWS = 65_536
# Half of the default message limit; the subjects of the rows take the rest.
_MOST_BYTES = 32 << 20
_MOST_HISTORIES = 4_096
_DEFAULT_USERS = 512
_MOST_ITEMS = 65_536
_DEFAULT_ITEMS = 4_096
# Rows of histories per run of the graph: larger ones gain nothing and hold memory.
_RUN_ROWS = 64


@dataclass(frozen=True)
class GivenHistories:
    """Histories of the request itself."""

    histories: Sequence[Sequence[str]]


@dataclass(frozen=True)
class UserPage:
    """A page of users of the history store; limit 0 = 512."""

    cursor: str = ""
    limit: int = 0


@dataclass(frozen=True)
class ItemPage:
    """A page of items, each a history of its own; limit 0 = 4,096."""

    cursor: str = ""
    limit: int = 0


@dataclass(frozen=True)
class ExportQuery:
    """Which activations."""

    source: GivenHistories | UserPage | ItemPage
    model: str = ""
    model_version: str = ""
    hook: str = ""
    all_positions: bool = False


@dataclass(frozen=True)
class ExportRow:
    """The subject of one row; `position` counts the known items of the whole history consumed, from 1."""

    user_id: str = ""
    item_id: str = ""
    position: int = 0
    history_index: int = 0


@dataclass(frozen=True)
class ExportPage:
    """Activations float32 [n, d], a subject per row, and the cursor of the next page ("" = the last)."""

    recommender: OnnxRecommender
    hook: str
    activations: NDArray[np.float32]
    rows: list[ExportRow]
    passthrough: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    next_cursor: str = ""


@dataclass(frozen=True)
class _Source:
    user_id: str
    item_id: str
    history_index: int
    indices: NDArray[np.int64]


class ExportHandler:
    """Computes pages of activations."""

    def __init__(self, models: ModelTable, subjects: SubjectReader) -> None:
        """Keeps its collaborators."""
        self._models = models
        self._subjects = subjects

    def __call__(self, query: ExportQuery) -> ExportPage:
        """One page; InvalidRequestError and FailedPreconditionError as they say."""
        recommender = self._models.get(query.model, query.model_version).recommender
        hook = check_hook(recommender, query.hook)
        if query.all_positions and not hook.all_positions:
            raise FailedPreconditionError(
                f"hook {hook.name!r} of model {recommender.name} exports the last position only; ask for POSITIONS_LAST"
            )
        sources, cursor = self._sources(recommender, query)
        activations, rows, passthrough = _compute(recommender, sources, query.all_positions)
        return ExportPage(recommender, hook.name, activations, rows, passthrough, cursor)

    def _sources(self, recommender: OnnxRecommender, query: ExportQuery) -> tuple[list[_Source], str]:
        match query.source:
            case GivenHistories(histories):
                return _given(recommender, histories, query.all_positions), ""
            case UserPage() as page:
                return self._users(recommender, page, query.all_positions)
            case ItemPage() as page:
                first, last, cursor = item_range(recommender, page)
                ids = recommender.bundle.item_ids
                return [
                    _Source("", ids[index - 1], place, np.array([index], dtype=np.int64))
                    for place, index in enumerate(range(first, last))
                ], cursor

    def _users(self, recommender: OnnxRecommender, page: UserPage, all_positions: bool) -> tuple[list[_Source], str]:
        """As many users of the page as fit the rows of one batch; users without a known item are left out."""
        store = self._subjects.require_store()
        limit = page.limit or _DEFAULT_USERS
        if limit > _MOST_HISTORIES:
            raise InvalidRequestError(f"users.limit = {limit}; ask for at most {_MOST_HISTORIES}")
        if all_positions:
            limit = min(limit, max(1, most_rows(recommender) // recommender.max_history))
        users = store.users(page.cursor, limit)
        found = (
            (place, user_id, recommender.bundle.index_of_known(store.get(user_id)))
            for place, user_id in enumerate(users.user_ids)
        )
        return [
            _Source(user_id, "", place, indices) for place, user_id, indices in found if len(indices)
        ], users.next_cursor


def most_rows(recommender: OnnxRecommender) -> int:
    """Most activation rows in one answer: fewer the longer an activation is, so that it fits a message."""
    return max(1, min(_MOST_ROWS, _MOST_BYTES // (4 * recommender.hooks[0].dim)))


def item_range(recommender: OnnxRecommender, page: ItemPage) -> tuple[int, int, str]:
    """First and one past the last item index of a page, and the next cursor. A cursor is the next item index."""
    limit = page.limit or _DEFAULT_ITEMS
    if limit > _MOST_ITEMS:
        raise InvalidRequestError(f"items.limit = {limit}; ask for at most {_MOST_ITEMS}")
    if page.cursor and not (page.cursor.isascii() and page.cursor.isdigit()):
        raise InvalidRequestError(f"cursor {page.cursor!r} is none of this server's; start again without one")
    first = max(int(page.cursor or 1), 1)
    last = min(first + min(limit, most_rows(recommender)), recommender.n_items + 1)
    return first, max(last, first), str(last) if last <= recommender.n_items else ""


def _given(recommender: OnnxRecommender, histories: Sequence[Sequence[str]], all_positions: bool) -> list[_Source]:
    if len(histories) > _MOST_HISTORIES:
        raise InvalidRequestError(f"{len(histories)} histories came; send at most {_MOST_HISTORIES}")
    sources = [
        _Source("", "", place, recommender.bundle.index_of_known(history)) for place, history in enumerate(histories)
    ]
    for source in sources:
        if not len(source.indices):
            raise InvalidRequestError(
                f"history {source.history_index} has no item known to model {recommender.name}; leave it out"
            )
    rows = sum(min(len(one.indices), recommender.max_history) for one in sources) if all_positions else len(sources)
    if rows > most_rows(recommender):
        raise InvalidRequestError(
            f"{rows} rows would come back, the most is {most_rows(recommender)}; send fewer histories"
        )
    return sources


def _compute(
    recommender: OnnxRecommender, sources: list[_Source], all_positions: bool
) -> tuple[NDArray[np.float32], list[ExportRow], dict[str, NDArray[Any]]]:
    dim = recommender.hooks[0].dim
    activations = [np.zeros((0, dim), dtype=np.float32)]
    passthrough: dict[str, list[NDArray[Any]]] = {}
    rows: list[ExportRow] = []
    for start in range(0, len(sources), _RUN_ROWS):
        run = sources[start : start + _RUN_ROWS]
        histories = recommender.pad([source.indices for source in run])
        if all_positions:
            every = recommender.embed_positions(histories)
            # Right-padded: the real positions of a row are its first ones.
            activations.extend(
                row[: min(len(source.indices), len(row))] for source, row in zip(run, every, strict=True)
            )
            rows.extend(row for source in run for row in _positions(source, recommender.max_history))
            continue
        embedded = recommender.embed(histories)
        activations.append(embedded.activation)
        for name, tensor in embedded.passthrough.items():
            passthrough.setdefault(name, []).append(tensor)
        rows.extend(_row(source, len(source.indices)) for source in run)
    joined = {name: np.concatenate(parts) for name, parts in passthrough.items()}
    return np.concatenate(activations), rows, joined


def _positions(source: _Source, max_history: int) -> Iterator[ExportRow]:
    """Subjects of the newest `max_history` positions."""
    length = len(source.indices)
    return (_row(source, position) for position in range(max(length - max_history, 0) + 1, length + 1))


def _row(source: _Source, position: int) -> ExportRow:
    return ExportRow(source.user_id, source.item_id, position, source.history_index)
