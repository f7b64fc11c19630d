"""Whom activations are asked of, resolved to what one model knows: item indices, the user's number, attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from recsae.errors import FailedPreconditionError, InvalidRequestError, NotFoundError
from recsae.rpc.limits import MOST_ATTRIBUTES, MOST_HISTORY, at_most
from recsae.sdk.model import HistoryOf, ModelCard
from recsae.sdk.vocabulary import Indices, Users
from recsae.steering.segments import Attribute

_NONE: Indices = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Subject:
    """A subject as it is asked about. `item_ids` None = the history the server holds."""

    user_id: str = ""
    item_ids: Sequence[str] | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A subject as one model reads it: all its known items' indices, and how its rows are named in the answer.

    `own_id` is the user's id in the model's own data, `user_id` what the user is called in answers.
    """

    history: Indices
    user: int
    own_id: str = ""
    user_id: str = ""
    item_id: str = ""
    history_index: int = 0
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    item_ids: Sequence[str] = ()


class SubjectReader:
    """Resolves subjects for one model."""

    def __init__(self, card: ModelCard, history_of: HistoryOf | None) -> None:
        """Without `history_of` requests carry their histories."""
        self._card = card
        self._history_of = history_of

    def given(self, subjects: Sequence[Subject]) -> list[Case]:
        """Subjects that carry what they are; InvalidRequestError for a history without any item of the model's."""
        return [self._case(subject, subject.item_ids or (), place) for place, subject in enumerate(subjects)]

    def one(self, subject: Subject) -> Case:
        """A single subject, its history looked up when none came; NotFoundError for an unknown user."""
        if subject.item_ids is not None:
            return self._case(subject, subject.item_ids, 0)
        if not subject.user_id:
            raise InvalidRequestError("neither a user id nor a history came; send one of them")
        if not self._card.reads_history:
            if self._card.users is not None and self._card.users.place_of(subject.user_id) is None:
                raise NotFoundError(f"model {self._card.name} knows no user {subject.user_id!r}; name one of its users")
            return self._case(subject, (), 0)
        item_ids = self._stored(subject.user_id)
        if not item_ids:
            raise NotFoundError(f"no history of user {subject.user_id!r} is known; send a history in the request")
        return self._case(subject, item_ids, 0)

    def page_of_users(self, first: int, last: int) -> list[Case]:
        """Users by place; those without a known item are left out where the model needs one."""
        users, card = self.require_users(), self._card
        cases = []
        for place, user_id in enumerate(users.vocabulary.ids[first:last]):
            item_ids = self._stored(user_id) if card.reads_history else ()
            if card.reads_history and not card.empty_history and not len(card.items.places_of_known(item_ids)):
                continue
            cases.append(replace(self._case(Subject(user_id), item_ids, place), user_id=users.shown(user_id)))
        return cases

    def item(self, place: int, history_index: int) -> Case:
        """An item as a history of its own."""
        items, users = self._card.items, self._card.users
        unknown = users.index_of("") if users else 0
        index = items.indices[place : place + 1]
        return Case(index, unknown, item_id=items.ids[place], history_index=history_index)

    def require_users(self) -> Users:
        """The users that can be listed; FailedPreconditionError when there are none."""
        if self._card.users is None or (self._card.reads_history and self._history_of is None):
            raise FailedPreconditionError(
                "this server lists no users; send histories or subjects, or give the exporter `users=`"
                + (" and `history_of=`" if self._card.reads_history else "")
            )
        return self._card.users

    def _stored(self, user_id: str) -> Sequence[str]:
        if self._history_of is None:
            raise FailedPreconditionError(
                "this server keeps no histories; send one in the request, or give the exporter `history_of=`"
            )
        own_id = self._card.users.own_id(user_id) if self._card.users else user_id
        return [str(one) for one in self._history_of(own_id)]

    def _case(self, subject: Subject, item_ids: Sequence[str], place: int) -> Case:
        card = self._card
        at_most(len(item_ids), MOST_HISTORY, "items of a history")
        at_most(len(subject.attributes), MOST_ATTRIBUTES, "attributes of a subject")
        history = card.items.indices[card.items.places_of_known(item_ids)] if card.reads_history else _NONE
        if card.reads_history and not card.empty_history and not len(history):
            raise InvalidRequestError(
                f"none of the {len(item_ids)} items of history {place} is known to model {card.name} {card.version}; "
                "leave the history out"
            )
        user = card.users.index_of(subject.user_id) if card.users else 0
        own_id = card.users.own_id(subject.user_id) if card.users else subject.user_id
        attributes = {name: value for name, value in subject.attributes.items() if name in card.attributes}
        return Case(history, user, own_id, subject.user_id, "", place, attributes, item_ids)
