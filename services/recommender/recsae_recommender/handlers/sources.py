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
from recsae.rpc import limits
from recsae.rpc.deadline import Deadline
from recsae.rpc.limits import Page
from recsae.steering.segments import Attribute, Segment, matches
from recsae.store.histories import HistoryStore
from recsae_recommender.subjects import SubjectReader, needs_history

# Users whose attributes are looked at for one page: about a second where each is a round trip to Redis.
MOST_SCANNED = 4_096
_SCANNED_AT_ONCE = 256


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
class UserPage(Page):
    """A page of users of the history store; limit 0 = 512. With a `segment`, only of those who certainly match it."""

    segment: Segment | None = None


@dataclass(frozen=True)
class ItemPage(Page):
    """A page of items, each a history of its own; limit 0 = 4,096."""


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
    limits.at_most(len(given), limits.MOST_SUBJECTS, "histories")
    reads_attributes = bool(recommender.reads.attributes)
    sources = []
    for place, one in enumerate(given):
        indices = recommender.bundle.index_of_known(one.history)
        if not len(indices) and needs_history(recommender):
            raise InvalidRequestError(f"history {place} has no item known to model {recommender.name}; leave it out")
        limits.at_most(len(one.attributes), limits.MOST_ATTRIBUTES, "attributes of a subject")
        stored = subjects.attributes(recommender, one.user_id) if reads_attributes else {}
        known_as = subjects.known_as(recommender, one.user_id)
        sources.append(Source(indices, place, one.user_id, known_as=known_as, attributes={**stored, **one.attributes}))
    return sources


def user_sources(
    recommender: OnnxRecommender,
    subjects: SubjectReader,
    page: UserPage,
    rows_per_user: int,
    deadline: Deadline | None = None,
) -> tuple[list[Source], str]:
    """As many users of the page as fit the rows of one batch, and the next cursor.

    Users the model knows nothing about are left out: without a known item, or, where it reads no history, unknown to
    it, or, where it reads attributes alone, without any.
    """
    store = subjects.require_store()
    limit = limits.page_length(page, limits.DEFAULT_USERS, limits.MOST_USERS)
    limit = min(limit, max(1, most_rows(recommender) // rows_per_user))
    user_ids, cursor = _listed(store, page, limit, deadline or Deadline())
    sources = []
    for place, user_id in enumerate(user_ids):
        indices = recommender.bundle.index_of_known(store.get(user_id))
        known_as = subjects.known_as(recommender, user_id)
        attributes = subjects.attributes(recommender, user_id) if recommender.reads.attributes else {}
        if len(indices) if recommender.reads.history else known_as if recommender.reads.user else attributes:
            sources.append(Source(indices, place, user_id, known_as=known_as, attributes=attributes))
    return sources, cursor


def _listed(store: HistoryStore, page: UserPage, limit: int, deadline: Deadline) -> tuple[list[str], str]:
    """Ids of at most `limit` users, and the next cursor. Attributes are read here and go no further.

    A page of a segment ends with the user who fills it, or when so many users were looked at.
    """
    segment = page.segment
    if segment is None:
        listed = store.users(page.cursor, limit)
        return list(listed.user_ids), listed.next_cursor
    found: list[str] = []
    cursor, scanned = page.cursor, 0
    while scanned < MOST_SCANNED:
        limits.check_time(deadline)
        listed = store.users(cursor, min(_SCANNED_AT_ONCE, MOST_SCANNED - scanned))
        for place, user_id in enumerate(listed.user_ids, start=1):
            if matches(segment, store.attributes(user_id)):
                found.append(user_id)
            if len(found) == limit:
                last = place == len(listed.user_ids)
                return found, listed.next_cursor if last else user_id
        cursor, scanned = listed.next_cursor, scanned + _SCANNED_AT_ONCE
        if not cursor:
            break
    return found, cursor


def item_sources(recommender: OnnxRecommender, page: ItemPage) -> tuple[list[Source], str]:
    """Items of a page, each a history of its own, and the next cursor."""
    first, last, cursor = item_range(recommender, page)
    ids = recommender.bundle.item_ids
    return [
        Source(np.array([index], dtype=np.int64), place, item_id=ids[index - 1])
        for place, index in enumerate(range(first, last))
    ], cursor


def most_rows(recommender: OnnxRecommender) -> int:
    """Most activation rows in one answer: as many as its longest hook allows."""
    return limits.most_rows(max(hook.dim for hook in recommender.hooks))


def item_range(recommender: OnnxRecommender, page: ItemPage) -> tuple[int, int, str]:
    """First and one past the last item index of a page, and the next cursor."""
    room = max(1, most_rows(recommender) // recommender.hooks[0].interests)
    found = limits.span(page, recommender.n_items, default=limits.DEFAULT_ITEMS, most=limits.MOST_ITEMS, room=room)
    return found.first + 1, found.last + 1, found.next_cursor
