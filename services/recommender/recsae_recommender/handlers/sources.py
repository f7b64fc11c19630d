"""Whose activations an export is about: given histories or subjects, a page of users, a page of items.

Every source is checked before anything is computed. Not here: computing (`export`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.recommenders.runtime import OnnxRecommender
from recsae.steering.segments import Attribute
from recsae_recommender.subjects import SubjectReader, needs_history

MOST_HISTORIES = 4_096
_DEFAULT_USERS = 512
_MOST_ITEMS = 65_536
_DEFAULT_ITEMS = 4_096
_MOST_ROWS = 65_536
# Half of the default message limit; the subjects of the rows take the rest.
_MOST_BYTES = 32 << 20


@dataclass(frozen=True)
class GivenSubject:
    """One subject of the request itself."""

    history: Sequence[str]
    user_id: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True)
class GivenSubjects:
    """Subjects of the request itself."""

    subjects: Sequence[GivenSubject]


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
class Source:
    """One subject as the model reads it, and how rows name it."""

    indices: NDArray[np.int64]
    history_index: int
    user_id: str = ""
    item_id: str = ""
    known_as: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


def given_sources(recommender: OnnxRecommender, subjects: SubjectReader, given: Sequence[GivenSubject]) -> list[Source]:
    """Subjects of the request; InvalidRequestError for too many, and for one the model cannot answer."""
    if len(given) > MOST_HISTORIES:
        raise InvalidRequestError(f"{len(given)} histories came; send at most {MOST_HISTORIES}")
    reads_attributes = bool(recommender.reads.attributes)
    sources = []
    for place, one in enumerate(given):
        indices = recommender.bundle.index_of_known(one.history)
        if not len(indices) and needs_history(recommender):
            raise InvalidRequestError(f"history {place} has no item known to model {recommender.name}; leave it out")
        attributes = {**subjects.attributes(one.user_id), **one.attributes} if reads_attributes else {}
        known_as = subjects.known_as(recommender, one.user_id)
        sources.append(Source(indices, place, one.user_id, known_as=known_as, attributes=attributes))
    return sources


def user_sources(
    recommender: OnnxRecommender, subjects: SubjectReader, page: UserPage, rows_per_user: int
) -> tuple[list[Source], str]:
    """As many users of the page as fit the rows of one batch, and the next cursor.

    Users the model cannot answer are left out: without a known item, or, where it reads no history, unknown to it.
    """
    store = subjects.require_store()
    limit = page.limit or _DEFAULT_USERS
    if limit > MOST_HISTORIES:
        raise InvalidRequestError(f"users.limit = {limit}; ask for at most {MOST_HISTORIES}")
    users = store.users(page.cursor, min(limit, max(1, most_rows(recommender) // rows_per_user)))
    sources = []
    for place, user_id in enumerate(users.user_ids):
        indices = recommender.bundle.index_of_known(store.get(user_id))
        known_as = subjects.known_as(recommender, user_id)
        if len(indices) if recommender.reads.history else known_as:
            attributes = subjects.attributes(user_id) if recommender.reads.attributes else {}
            sources.append(Source(indices, place, user_id, known_as=known_as, attributes=attributes))
    return sources, users.next_cursor


def item_sources(recommender: OnnxRecommender, page: ItemPage) -> tuple[list[Source], str]:
    """Items of a page, each a history of its own, and the next cursor."""
    first, last, cursor = item_range(recommender, page)
    ids = recommender.bundle.item_ids
    return [
        Source(np.array([index], dtype=np.int64), place, item_id=ids[index - 1])
        for place, index in enumerate(range(first, last))
    ], cursor


def most_rows(recommender: OnnxRecommender) -> int:
    """Most activation rows in one answer: fewer the longer an activation is, so that it fits a message."""
    longest = max(hook.dim for hook in recommender.hooks)
    return max(1, min(_MOST_ROWS, _MOST_BYTES // (4 * longest)))


def item_range(recommender: OnnxRecommender, page: ItemPage) -> tuple[int, int, str]:
    """First and one past the last item index of a page, and the next cursor. A cursor is the next item index."""
    limit = page.limit or _DEFAULT_ITEMS
    if limit > _MOST_ITEMS:
        raise InvalidRequestError(f"items.limit = {limit}; ask for at most {_MOST_ITEMS}")
    if page.cursor and not (page.cursor.isascii() and page.cursor.isdigit()):
        raise InvalidRequestError(f"cursor {page.cursor!r} is none of this server's; start again without one")
    first = max(int(page.cursor or 1), 1)
    fitting = most_rows(recommender) // recommender.hooks[0].interests
    last = min(first + min(limit, max(1, fitting)), recommender.n_items + 1)
    return first, max(last, first), str(last) if last <= recommender.n_items else ""
