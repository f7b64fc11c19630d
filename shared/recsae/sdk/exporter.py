"""A model behind the whole `ActivationExporter` contract, and `Recommender.Rank` where it has a head.

    Exporter(model).serve("127.0.0.1:50051")

`model` is any object with the four members of `ServedModel`; `recsae.sdk.torch` makes one of a torch module.
Not here: gRPC (`servicers`, `serving`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recsae.errors import FailedPreconditionError, InvalidRequestError, NotFoundError
from recsae.recommenders.description import Hook
from recsae.rpc.deadline import Deadline
from recsae.rpc.limits import (
    DEFAULT_ITEMS,
    DEFAULT_USERS,
    MOST_ITEMS,
    MOST_PAIRED,
    MOST_SUBJECTS,
    MOST_USERS,
    Page,
    at_most,
    span,
)
from recsae.sdk.exporting import ActivationReader, Exported
from recsae.sdk.model import DotProduct, HistoryOf, PairScores, ServedModel
from recsae.sdk.ranking import RankAsk, RankedList, rank
from recsae.sdk.serving import Serving, serve
from recsae.sdk.subjects import Case, Subject, SubjectReader

if TYPE_CHECKING:
    import grpc

_SUGGESTED = 10


@dataclass(frozen=True)
class ExportedPage:
    """Activations of a page, and the cursor of the next one ("" = the last)."""

    exported: Exported
    next_cursor: str = ""


class Exporter:
    """Answers the contract's questions about one model. Safe to call from several threads if the model is."""

    def __init__(self, model: ServedModel, *, history_of: HistoryOf | None = None) -> None:
        """`history_of` gives the server's own history of a user by id; without it requests carry histories.

        InvalidRequestError when the head does not fit the items.
        """
        self.model = model
        self.card = model.card
        self._subjects = SubjectReader(self.card, history_of)
        self._reader = ActivationReader(model)
        head, dim = model.head, self.card.hooks[0].dim
        if isinstance(head, DotProduct) and head.vectors.shape != (len(self.card.items), dim):
            raise InvalidRequestError(
                f"item_vectors have shape {list(head.vectors.shape)}; {len(self.card.items)} items and activations of "
                f"length {dim} need [{len(self.card.items)}, {dim}], in the order of the items"
            )

    @property
    def name(self) -> str:
        """Name the model is served under."""
        return self.card.name

    @property
    def version(self) -> str:
        """Version of the model: what activations, SAEs and plans are bound to."""
        return self.card.version

    def serve(
        self,
        address: str = "127.0.0.1:0",
        *,
        credentials: grpc.ServerCredentials | None = None,
        tokens: Sequence[str] = (),
    ) -> Serving:
        """Serves from threads of its own until `stop()`; other machines need `credentials` (TLS) and `tokens`.

        A token is a secret of 16 characters or more, `name:secret` or `name:role:secret` as services write them; each
        may call everything an exporter serves. FailedPreconditionError when the address is taken, InvalidRequestError
        when it is public and bare.
        """
        return serve([self], address, credentials=credentials, tokens=tokens)

    def check(self, version: str) -> None:
        """FailedPreconditionError for another version than the one loaded ("" = any): versions never mix."""
        if version not in ("", self.version):
            raise FailedPreconditionError(
                f"model {self.name} is loaded at version {self.version}, not {version}; ask for that one"
            )

    def hook(self, name: str) -> Hook:
        """The hook of that name, the first for ""; NotFoundError when there is none."""
        for hook in self.card.hooks:
            if name in ("", hook.name):
                return hook
        names = ", ".join(repr(hook.name) for hook in self.card.hooks)
        raise NotFoundError(f"model {self.name} has no hook {name!r}; it has {names}")

    def export(
        self,
        subjects: Sequence[Subject],
        *,
        hook: str = "",
        every_position: bool = False,
        candidates: Sequence[str] = (),
        deadline: Deadline | None = None,
    ) -> ExportedPage:
        """Activations of the subjects given; see `ActivationReader.read`."""
        at_most(len(subjects), MOST_SUBJECTS, "subjects")
        cases = self._subjects.given(subjects)
        read = self._reader.read
        return ExportedPage(
            read(self.hook(hook), cases, every_position=every_position, candidates=candidates, deadline=deadline)
        )

    def export_users(
        self,
        page: Page,
        *,
        hook: str = "",
        every_position: bool = False,
        candidates: Sequence[str] = (),
        deadline: Deadline | None = None,
    ) -> ExportedPage:
        """Activations of a page of the users; FailedPreconditionError when this server lists none."""
        users, found = self._subjects.require_users(), self.hook(hook)
        each = (self.card.max_history if every_position else 1) * (len(candidates) or 1) * found.interests
        room = max(1, self.card.most_rows(found) // each)
        part = span(page, len(users.vocabulary), default=DEFAULT_USERS, most=MOST_USERS, room=room)
        cases = self._subjects.page_of_users(part.first, part.last)
        exported = self._reader.read(
            found, cases, every_position=every_position, candidates=candidates, deadline=deadline
        )
        return ExportedPage(exported, part.next_cursor)

    def export_items(self, page: Page, *, hook: str = "", deadline: Deadline | None = None) -> ExportedPage:
        """Activations of a page of the items."""
        found = self.hook(hook)
        room = max(1, self.card.most_rows(found) // found.interests)
        part = span(page, len(self.card.items), default=DEFAULT_ITEMS, most=MOST_ITEMS, room=room)
        cases = [self._subjects.item(place, order) for order, place in enumerate(range(part.first, part.last))]
        return ExportedPage(self._reader.items(found, cases, deadline), part.next_cursor)

    def embed(
        self,
        subject: Subject,
        *,
        hook: str = "",
        candidates: Sequence[str] = (),
        deadline: Deadline | None = None,
    ) -> tuple[Exported, Case]:
        """The activation of one subject, and the case it was read as; NotFoundError for an unknown user."""
        at_most(len(candidates), MOST_PAIRED, "candidates")
        found, case = self.hook(hook), self._subjects.one(subject)
        if found.rows == "pair" and not candidates:
            candidates = self._suggested(case, deadline or Deadline())
        return self._reader.read(found, [case], candidates=candidates, deadline=deadline), case

    def rank(self, ask: RankAsk, deadline: Deadline | None = None) -> list[RankedList]:
        """Ranked lists from activations; FailedPreconditionError when the model has no head here."""
        if self.model.head is None:
            raise FailedPreconditionError(
                f"model {self.name} was given no head; give the exporter `item_vectors=` or `head=` to rank"
            )
        return rank(self.card, self.model.head, ask, deadline or Deadline())

    def _suggested(self, case: Case, deadline: Deadline) -> list[str]:
        """The ten items a model of pairs would recommend to a subject: every item is scored, piece by piece."""
        head, items = self.model.head, self.card.items
        if not isinstance(head, PairScores):
            raise FailedPreconditionError(f"model {self.name} has no head for pairs; send candidate_item_ids")
        hook = self.card.hooks[0]
        scores = np.zeros(len(items), np.float32)
        for first in range(0, len(items), MOST_PAIRED):
            ids = items.ids[first : first + MOST_PAIRED]
            x = self._reader.read(hook, [case], candidates=ids, deadline=deadline).activations
            scores[first : first + len(ids)] = np.asarray(head.score(x), dtype=np.float32).reshape(-1)
        best = np.argsort(-scores, kind="stable")[:_SUGGESTED]
        return [items.ids[place] for place in best.tolist()]
