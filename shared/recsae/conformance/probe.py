"""What the checks ask through: the model under test, its items, and a few histories made from them.

Everything is deterministic, so that two runs ask the same. Answers that several checks look at are asked for once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recsae.conformance.asking import RefusedError, Service
from recsae.conformance.outcomes import BrokenError
from recsae.conformance.reading import Floats, matrix
from recsae.v1 import common_pb2, recommender_pb2
from recsae.v1.recommender_pb2 import ExportActivationsRequest, ExportActivationsResponse, HookInfo, ModelInfo, Subject

OTHER_VERSION = "0" * 16
UNKNOWN_ITEM = "recsae-conformance-no-such-item"
UNKNOWN_MODEL = "recsae-conformance-no-such-model"
ALL = recommender_pb2.POSITIONS_ALL
LAST = recommender_pb2.POSITIONS_LAST
_LENGTHS = (1, 2, 3, 5, 8, 13, 20, 20)
_FIRST_ITEMS = 512
_ENOUGH_ITEMS = 32
_CANDIDATES = 5


@dataclass
class Probe:
    """A service and what is known of it. Properties raise `RefusedError` or `BrokenError` like a check."""

    service: Service
    model: str = ""

    @cached_property
    def described(self) -> recommender_pb2.GetModelResponse:
        """GetModel's answer for the model under test."""
        return self.service.get_model(recommender_pb2.GetModelRequest(model=self.model))

    @property
    def info(self) -> ModelInfo:
        """The model under test."""
        return self.described.model

    @property
    def hook(self) -> HookInfo:
        """Its first hook: the one that is ranked from and steered at."""
        return self.info.hooks[0]

    @property
    def pairs(self) -> bool:
        """Whether a row is a subject and a candidate."""
        return self.hook.rows == recommender_pb2.ROW_KIND_PAIR

    @property
    def rows_per_subject(self) -> int:
        """Rows of one subject at one position, without candidates."""
        return max(self.hook.interests, 1) if self.hook.rows == recommender_pb2.ROW_KIND_INTEREST else 1

    @property
    def most_rows(self) -> int:
        """Rows one answer may have; a server that names none is asked for few."""
        return self.info.max_export_rows or 4_096

    @cached_property
    def item_ids(self) -> list[str]:
        """Up to 512 items, at least 32 where pages are small, from the items source or else from ExportItems."""
        ids: dict[str, None] = {}
        cursor, rows = "", 0
        for _ in range(_ENOUGH_ITEMS):
            found, cursor = self._item_page(cursor)
            rows += len(found)
            ids.update(dict.fromkeys(item for item in found if item))
            if not cursor or len(ids) >= _ENOUGH_ITEMS:
                break
        if not ids:
            raise BrokenError(
                "ExportActivations of a page of items",
                f"{rows} rows came, none with a subject.item_id",
                "name the item of every row of the items source",
            )
        return list(ids)

    def _item_page(self, cursor: str) -> tuple[list[str], str]:
        page = recommender_pb2.ItemPage(cursor=cursor, limit=min(_FIRST_ITEMS, self.most_rows))
        try:
            answer = self.export(items=page)
        except RefusedError as refused:
            try:
                listed = self.service.export_items(recommender_pb2.ExportItemsRequest(model=self.model, page=page))
            except RefusedError:
                raise refused from None
            return list(listed.item_ids), listed.next_cursor
        return [row.item_id for row in answer.batch.subjects], answer.next_cursor

    @cached_property
    def user_ids(self) -> list[str]:
        """Up to 16 users of the server's own store; empty when it has none."""
        page = recommender_pb2.UserPage(limit=16)
        try:
            rows = self.export(users=page).batch.subjects
        except RefusedError:
            return []
        return list(dict.fromkeys(row.user_id for row in rows if row.user_id))

    @cached_property
    def cases(self) -> list[Subject]:
        """Subjects of different lengths, fewer where the server returns few rows at once."""
        if self.info.ignores_history and len(self.user_ids) > 1:
            return [Subject(user_id=user) for user in self.user_ids[: self.most_rows]]
        random = np.random.default_rng(0)
        lengths = [min(length, max(self.info.max_history, 1)) for length in _LENGTHS]
        made = [self._draw(random, length) for length in lengths]
        kept = [row for row, total in enumerate(np.cumsum(lengths)) if total * self.rows_per_subject <= self.most_rows]
        return [made[row] for row in kept] or made[:1]

    @cached_property
    def candidates(self) -> list[str]:
        """A few items to pair subjects with."""
        return self.item_ids[-_CANDIDATES:]

    def long_history(self, extra: int = 3) -> list[str]:
        """`extra` items more than the model reads."""
        random = np.random.default_rng(1)
        return list(self._draw(random, self.info.max_history + extra).history.item_ids)

    @cached_property
    def last(self) -> ExportActivationsResponse:
        """The last position of every case."""
        return self.of(self.cases)

    @cached_property
    def last_rows(self) -> Floats:
        """float32 [cases x rows per subject, d]."""
        return self.matrix(self.last, len(self.cases) * self.rows_per_subject)

    @cached_property
    def all(self) -> ExportActivationsResponse:
        """Every position of every case."""
        return self.of(self.cases, ALL)

    def of(
        self,
        subjects: Sequence[Subject],
        positions: recommender_pb2.Positions.ValueType = LAST,
        *,
        candidates: Sequence[str] = (),
        hook: str = "",
    ) -> ExportActivationsResponse:
        """Their activations; sent as bare histories where that is all there is."""
        if any(subject.user_id or subject.attributes for subject in subjects):
            return self.export(
                subjects=recommender_pb2.SubjectList(subjects=subjects),
                positions=positions,
                candidate_item_ids=candidates,
                hook=hook,
            )
        histories = recommender_pb2.HistoryList(histories=[subject.history for subject in subjects])
        return self.export(histories=histories, positions=positions, candidate_item_ids=candidates, hook=hook)

    def embed(self, subject: Subject, candidates: Sequence[str] = ()) -> recommender_pb2.EmbedResponse:
        """Embed of one subject at the first hook."""
        request = recommender_pb2.EmbedRequest(
            model=self.model,
            hook=self.hook.name,
            user_id=subject.user_id,
            attributes=subject.attributes,
            candidate_item_ids=candidates,
        )
        if subject.HasField("history"):
            request.history.CopyFrom(subject.history)
        return self.service.embed(request)

    def export(
        self,
        *,
        positions: recommender_pb2.Positions.ValueType = LAST,
        model_version: str | None = None,
        hook: str = "",
        histories: recommender_pb2.HistoryList | None = None,
        users: recommender_pb2.UserPage | None = None,
        items: recommender_pb2.ItemPage | None = None,
        subjects: recommender_pb2.SubjectList | None = None,
        candidate_item_ids: Sequence[str] = (),
    ) -> ExportActivationsResponse:
        """ExportActivations at the first hook, of the version GetModel names."""
        return self.service.export(
            ExportActivationsRequest(
                model=self.model,
                model_version=self.info.version if model_version is None else model_version,
                hook=hook or self.hook.name,
                positions=positions,
                histories=histories,
                users=users,
                items=items,
                subjects=subjects,
                candidate_item_ids=candidate_item_ids,
            )
        )

    def matrix(self, answer: ExportActivationsResponse, rows: int | None = None) -> Floats:
        """float32 [rows, d] of an answer."""
        return matrix(answer.batch.activations, "ExportActivations", rows=rows, dim=self.hook.dim)

    def _draw(self, random: np.random.Generator, length: int) -> Subject:
        drawn = random.choice(len(self.item_ids), size=length, replace=length > len(self.item_ids))
        return Subject(history=common_pb2.History(item_ids=[self.item_ids[place] for place in drawn]))


def cut(subject: Subject, length: int) -> Subject:
    """The subject when it had consumed `length` items."""
    return Subject(
        user_id=subject.user_id,
        history=common_pb2.History(item_ids=subject.history.item_ids[:length]),
        attributes=subject.attributes,
    )
