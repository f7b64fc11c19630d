"""The recommender as the interpreter sees it: describe, embed, rank, items. Every call carries a deadline.

Answers are checked before they are used: length, finiteness, version. Models are named by their address (`NAME` or
`NAME@HOOK`). Not here: what is made of the answers, and how messages become values (`convert_readings`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import grpc

from recsae.errors import FailedPreconditionError
from recsae.recommenders.address import split_address
from recsae.rpc.deadline import Deadline
from recsae.rpc.status import error_from
from recsae.steering.wire import attribute_message
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc
from recsae_interpreter.convert_readings import (
    batch_of,
    facts_of,
    item_table,
    rank_request,
    rows_of,
    subject_message,
    users_request,
)
from recsae_interpreter.rank_parts import rank_parts
from recsae_interpreter.readings import (
    HeadRows,
    ItemTable,
    ModelFacts,
    Reading,
    Rows,
    ScoredItem,
    Subject,
    UserIds,
    UserPage,
    each_subject,
    first_subject,
)

Answer = TypeVar("Answer")

_ITEM_PAGE = 4_096
# One table is items x d floats: 13 MB at 50,000 items of d = 64.
_TABLES_KEPT = 4
_FACTS_KEPT = 64


class NotOfferedError(FailedPreconditionError):
    """The recommender implements a part of the contract, and not this one: it may export activations and not rank."""


class Recommender(Protocol):
    """What the interpreter asks of a recommender."""

    def describe(self, model: str, model_version: str, deadline: Deadline) -> ModelFacts:
        """The model of an address as it is served now; what is known of that version already is not asked again."""

    def embed(self, model: str, subject: Subject, deadline: Deadline, candidates: Sequence[str] = ()) -> Reading:
        """All rows of one subject at the hook of an address; `candidates` are for a hook with a row per pair."""

    def embed_histories(
        self,
        model: str,
        model_version: str,
        histories: Sequence[Sequence[str]],
        deadline: Deadline,
        candidates: Sequence[str] = (),
    ) -> Rows:
        """What serving would compute for each history, in one call; InvalidRequestError for one of no known item."""

    def embed_subjects(
        self, model: str, model_version: str, subjects: Sequence[Subject], deadline: Deadline
    ) -> list[Reading]:
        """What serving would compute for each subject, whose history is given, in one call; not of pairs.

        InvalidRequestError for a history of no known item, unless the model answers without.
        """

    def users(self, page: UserPage, deadline: Deadline) -> UserIds:
        """Some of the users of its history store, in its order; FailedPreconditionError where it keeps none."""

    def best_items(self, model: str, subject: Subject, k: int, deadline: Deadline) -> list[str]:
        """The `k` items the model recommends, policies in force included: candidates for a ranker of pairs."""

    def rank(
        self, reading: Reading, lists: Sequence[HeadRows], *, k: int, deadline: Deadline, candidates: Sequence[str] = ()
    ) -> list[list[ScoredItem]]:
        """A list per entry of `lists`; items of the history are left out unless `candidates` are named.

        NotOfferedError where it does not rank. Of a hook with a row per pair each list ranks the items of its rows.
        """

    def rank_each(
        self, readings: Sequence[Reading], lists: Sequence[HeadRows], *, k: int, deadline: Deadline
    ) -> list[list[ScoredItem]]:
        """As `rank`, where list i is made from reading i: of one hook and version of one model, not of pairs."""

    def items(self, reading: Reading, deadline: Deadline) -> ItemTable | None:
        """The items of the reading's model version; None when its head is no dot product."""


class GrpcRecommender:
    """A `Recommender` behind one address that serves all its models."""

    def __init__(self, channel: grpc.Channel, *, timeout_s: float) -> None:
        """`timeout_s` bounds one call when the caller gave more time."""
        self._exporter = recommender_pb2_grpc.ActivationExporterStub(channel)
        self._recommender = recommender_pb2_grpc.RecommenderStub(channel)
        self._timeout_s = timeout_s
        self._tables: OrderedDict[tuple[str, str], ItemTable | None] = OrderedDict()
        self._facts: OrderedDict[tuple[str, str], ModelFacts] = OrderedDict()
        self._lock = threading.Lock()

    def describe(self, model: str, model_version: str, deadline: Deadline) -> ModelFacts:
        """See `Recommender`; replicas that serve another version describe the same hooks."""
        name = split_address(model).model
        with self._lock:
            if (name, model_version) in self._facts:
                return self._facts[name, model_version]
        facts = facts_of(self._call(self._exporter.GetModel, recommender_pb2.GetModelRequest(model=name), deadline))
        with self._lock:
            self._facts[name, facts.version] = facts
            while len(self._facts) > _FACTS_KEPT:
                self._facts.popitem(last=False)
        return facts

    def embed(self, model: str, subject: Subject, deadline: Deadline, candidates: Sequence[str] = ()) -> Reading:
        """See `Recommender`."""
        address = split_address(model)
        request = recommender_pb2.EmbedRequest(
            model=address.model,
            hook=address.hook,
            user_id=subject.user_id,
            history=_history(subject),
            attributes={name: attribute_message(value) for name, value in subject.attributes.items()},
            candidate_item_ids=candidates,
        )
        answer = self._call(self._exporter.Embed, request, deadline)
        batch = batch_of(answer.batch)
        hook = self.describe(batch.model, batch.model_version, deadline).hook(address.hook)
        if batch.hook not in ("", hook.name):
            raise FailedPreconditionError(
                f"the recommender answered hook {batch.hook!r} of {model} when asked for {hook.name!r}; rows of a "
                "hook mean nothing at another"
            )
        return first_subject(replace(batch, hook=hook.name), hook, tuple(answer.history.item_ids))

    def embed_histories(
        self,
        model: str,
        model_version: str,
        histories: Sequence[Sequence[str]],
        deadline: Deadline,
        candidates: Sequence[str] = (),
    ) -> Rows:
        """See `Recommender`."""
        address = split_address(model)
        request = recommender_pb2.ExportActivationsRequest(
            model=address.model,
            model_version=model_version,
            hook=address.hook,
            positions=recommender_pb2.POSITIONS_LAST,
            histories=recommender_pb2.HistoryList(histories=[common_pb2.History(item_ids=one) for one in histories]),
            candidate_item_ids=candidates,
        )
        answer = self._call(self._exporter.ExportActivations, request, deadline)
        return rows_of(answer.batch)

    def embed_subjects(
        self, model: str, model_version: str, subjects: Sequence[Subject], deadline: Deadline
    ) -> list[Reading]:
        """See `Recommender`."""
        address = split_address(model)
        request = recommender_pb2.ExportActivationsRequest(
            model=address.model,
            model_version=model_version,
            hook=address.hook,
            positions=recommender_pb2.POSITIONS_LAST,
            subjects=recommender_pb2.SubjectList(subjects=[subject_message(one) for one in subjects]),
        )
        batch = batch_of(self._call(self._exporter.ExportActivations, request, deadline).batch)
        hook = self.describe(batch.model, batch.model_version, deadline).hook(address.hook)
        return each_subject(replace(batch, hook=hook.name), hook, [tuple(one.history or ()) for one in subjects])

    def users(self, page: UserPage, deadline: Deadline) -> UserIds:
        """See `Recommender`; their activations come along and are dropped."""
        answer = self._call(self._exporter.ExportActivations, users_request(page), deadline)
        ids = dict.fromkeys(one.user_id for one in answer.batch.subjects)
        return UserIds(tuple(one for one in ids if one), answer.next_cursor)

    def best_items(self, model: str, subject: Subject, k: int, deadline: Deadline) -> list[str]:
        """See `Recommender`."""
        request = recommender_pb2.RecommendRequest(
            model=split_address(model).model,
            user_id=subject.user_id,
            history=_history(subject),
            k=k,
            attributes={name: attribute_message(value) for name, value in subject.attributes.items()},
        )
        return [item.item_id for item in self._call(self._recommender.Recommend, request, deadline).items]

    def rank(
        self, reading: Reading, lists: Sequence[HeadRows], *, k: int, deadline: Deadline, candidates: Sequence[str] = ()
    ) -> list[list[ScoredItem]]:
        """See `Recommender`."""
        return self._rank([reading] * len(lists), lists, k=k, deadline=deadline, candidates=candidates)

    def rank_each(
        self, readings: Sequence[Reading], lists: Sequence[HeadRows], *, k: int, deadline: Deadline
    ) -> list[list[ScoredItem]]:
        """See `Recommender`."""
        return self._rank(readings, lists, k=k, deadline=deadline)

    def _rank(
        self,
        readings: Sequence[Reading],
        lists: Sequence[HeadRows],
        *,
        k: int,
        deadline: Deadline,
        candidates: Sequence[str] = (),
    ) -> list[list[ScoredItem]]:
        ranked: list[list[ScoredItem]] = []
        for of, part in rank_parts(readings, lists):
            request = rank_request(of, part, k=k, candidates=candidates)
            answer = self._call(self._recommender.Rank, request, deadline)
            if len(answer.lists) != len(part) or answer.model_version != of[0].model_version:
                raise FailedPreconditionError(
                    f"the recommender answered {len(answer.lists)} lists of version {answer.model_version} when asked "
                    f"for {len(part)} of version {of[0].model_version}; it may be changing versions: try again"
                )
            ranked += [[ScoredItem(i.item_id, i.score, i.title) for i in one.items] for one in answer.lists]
        return ranked

    def items(self, reading: Reading, deadline: Deadline) -> ItemTable | None:
        """See `Recommender`; fetched once per model version."""
        key = (reading.model, reading.model_version)
        with self._lock:
            if key in self._tables:
                self._tables.move_to_end(key)
                return self._tables[key]
        table = self._fetch_items(reading, deadline)
        with self._lock:
            self._tables[key] = table
            while len(self._tables) > _TABLES_KEPT:
                self._tables.popitem(last=False)
        return table

    def _fetch_items(self, reading: Reading, deadline: Deadline) -> ItemTable | None:
        if not self.describe(reading.model, reading.model_version, deadline).dot_product:
            return None
        return item_table(self._item_pages(reading, deadline), reading.activations.shape[1])

    def _item_pages(self, reading: Reading, deadline: Deadline) -> Iterator[recommender_pb2.ExportItemsResponse]:
        cursor = ""
        while True:
            page = recommender_pb2.ItemPage(cursor=cursor, limit=_ITEM_PAGE)
            request = recommender_pb2.ExportItemsRequest(
                model=reading.model, model_version=reading.model_version, page=page
            )
            answer = self._call(self._exporter.ExportItems, request, deadline)
            yield answer
            cursor = answer.next_cursor
            if not cursor:
                return

    def _call(self, method: Callable[..., Answer], request: Any, deadline: Deadline) -> Answer:
        try:
            return method(request, timeout=deadline.budget(self._timeout_s))
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise NotOfferedError(
                    f"the recommender does not implement what {type(request).__name__} asks for"
                ) from error
            raise error_from(error) from error


def _history(subject: Subject) -> common_pb2.History | None:
    return None if subject.history is None else common_pb2.History(item_ids=subject.history)
