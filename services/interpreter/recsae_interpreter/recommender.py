"""The recommender as the interpreter sees it: embed, rank, items. Every call carries a deadline.

Answers are checked before they are used: length, finiteness, version. Not here: what is made of them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError
from recsae.rpc.deadline import Deadline
from recsae.rpc.status import error_from
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc

Floats = NDArray[np.float32]
Answer = TypeVar("Answer")

_ITEM_PAGE = 4_096
# One table is items x d floats: 13 MB at 50,000 items of d = 64.
_TABLES_KEPT = 4


@dataclass(frozen=True)
class Row:
    """One activation float32 [d], what computed it, the history it is of, and what else crosses to the head."""

    model: str
    model_version: str
    activation: Floats
    history: tuple[str, ...] = ()
    passthrough: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """Activations float32 [n, d] of one model version; `subject` int64 [n] says whose, by place in what was asked."""

    model_version: str
    activations: Floats
    subject: NDArray[np.int64]


@dataclass(frozen=True)
class ScoredItem:
    """One ranked item."""

    item_id: str
    score: float
    title: str


@dataclass(frozen=True)
class ItemTable:
    """Items of a dot-product head: `vectors` float32 [n + 1, d], `biases` float32 [n + 1] or None; row 0 is padding."""

    index_of: Mapping[str, int]
    vectors: Floats
    biases: Floats | None


class Recommender(Protocol):
    """What the interpreter asks of a recommender."""

    def embed(self, model: str, user_id: str, history: Sequence[str] | None, deadline: Deadline) -> Row:
        """The activation of a user, or of a history when given."""

    def embed_histories(
        self, model: str, model_version: str, histories: Sequence[Sequence[str]], deadline: Deadline
    ) -> Rows:
        """What serving would compute for each history, in one call; InvalidRequestError for one of no known item."""

    def rank(
        self, row: Row, activations: Floats, *, k: int, deadline: Deadline, candidates: Sequence[str] = ()
    ) -> list[list[ScoredItem]]:
        """Lists for `activations` float32 [n, d] that stand in for the row's; items of its history are left out."""

    def items(self, row: Row, deadline: Deadline) -> ItemTable | None:
        """The items of the row's model version; None when its head is no dot product."""


class GrpcRecommender:
    """A `Recommender` behind one address that serves all its models."""

    def __init__(self, channel: grpc.Channel, *, timeout_s: float) -> None:
        """`timeout_s` bounds one call when the caller gave more time."""
        self._exporter = recommender_pb2_grpc.ActivationExporterStub(channel)
        self._recommender = recommender_pb2_grpc.RecommenderStub(channel)
        self._timeout_s = timeout_s
        self._tables: OrderedDict[tuple[str, str], ItemTable | None] = OrderedDict()
        self._lock = threading.Lock()

    def embed(self, model: str, user_id: str, history: Sequence[str] | None, deadline: Deadline) -> Row:
        """See `Recommender`."""
        request = recommender_pb2.EmbedRequest(
            model=model,
            user_id=user_id,
            history=None if history is None else common_pb2.History(item_ids=history),
        )
        answer = self._call(self._exporter.Embed, request, deadline)
        return row_of(answer.batch, tuple(answer.history.item_ids))

    def embed_histories(
        self, model: str, model_version: str, histories: Sequence[Sequence[str]], deadline: Deadline
    ) -> Rows:
        """See `Recommender`."""
        request = recommender_pb2.ExportActivationsRequest(
            model=model,
            model_version=model_version,
            positions=recommender_pb2.POSITIONS_LAST,
            histories=recommender_pb2.HistoryList(histories=[common_pb2.History(item_ids=one) for one in histories]),
        )
        answer = self._call(self._exporter.ExportActivations, request, deadline)
        return rows_of(answer.batch)

    def rank(
        self, row: Row, activations: Floats, *, k: int, deadline: Deadline, candidates: Sequence[str] = ()
    ) -> list[list[ScoredItem]]:
        """See `Recommender`."""
        n = len(activations)
        request = recommender_pb2.RankRequest(
            model=row.model,
            model_version=row.model_version,
            activations=to_tensor(activations),
            passthrough=[
                common_pb2.NamedTensor(name=name, tensor=to_tensor(np.repeat(tensor[None], n, axis=0)))
                for name, tensor in row.passthrough.items()
            ],
            k=k,
            exclude=[recommender_pb2.ItemList(item_ids=row.history)] * n if row.history and not candidates else [],
            candidates=[recommender_pb2.ItemList(item_ids=candidates)] * n if candidates else [],
        )
        answer = self._call(self._recommender.Rank, request, deadline)
        if len(answer.lists) != n or answer.model_version != row.model_version:
            raise FailedPreconditionError(
                f"the recommender answered {len(answer.lists)} lists of version {answer.model_version} to {n} rows of "
                f"version {row.model_version}; it may be changing versions: try again"
            )
        return [[ScoredItem(i.item_id, i.score, i.title) for i in ranked.items] for ranked in answer.lists]

    def items(self, row: Row, deadline: Deadline) -> ItemTable | None:
        """See `Recommender`; fetched once per model version."""
        key = (row.model, row.model_version)
        with self._lock:
            if key in self._tables:
                self._tables.move_to_end(key)
                return self._tables[key]
        table = self._fetch_items(row, deadline)
        with self._lock:
            self._tables[key] = table
            while len(self._tables) > _TABLES_KEPT:
                self._tables.popitem(last=False)
        return table

    def _fetch_items(self, row: Row, deadline: Deadline) -> ItemTable | None:
        info = self._call(self._exporter.GetModel, recommender_pb2.GetModelRequest(model=row.model), deadline).model
        if info.head != recommender_pb2.HEAD_KIND_DOT_PRODUCT:
            return None
        dim = len(row.activation)
        ids: list[str] = []
        vectors: list[Floats] = [np.zeros((1, dim), np.float32)]
        biases: list[Floats] = [np.zeros(1, np.float32)]
        cursor = ""
        while True:
            page = recommender_pb2.ItemPage(cursor=cursor, limit=_ITEM_PAGE)
            request = recommender_pb2.ExportItemsRequest(model=row.model, model_version=row.model_version, page=page)
            answer = self._call(self._exporter.ExportItems, request, deadline)
            count = len(answer.item_ids)
            ids += answer.item_ids
            vectors.append(
                from_tensor(answer.vectors, name="vectors", dtype=np.float32, shape=(count, dim), finite=True)
            )
            if answer.HasField("biases"):
                biases.append(from_tensor(answer.biases, name="biases", dtype=np.float32, shape=(count,), finite=True))
            cursor = answer.next_cursor
            if not cursor:
                break
        return ItemTable(
            {item_id: place for place, item_id in enumerate(ids, start=1)},
            np.concatenate(vectors),
            np.concatenate(biases) if len(biases) > 1 else None,
        )

    def _call(self, method: Callable[..., Answer], request: Any, deadline: Deadline) -> Answer:
        try:
            return method(request, timeout=deadline.budget(self._timeout_s))
        except grpc.RpcError as error:
            raise error_from(error) from error


def row_of(batch: common_pb2.ActivationBatch, history: tuple[str, ...] = ()) -> Row:
    """The first row of a batch; InvalidRequestError when it has none or it is not finite."""
    activations = from_tensor(batch.activations, name="activations", dtype=np.float32, shape=(None, None), finite=True)
    if not len(activations):
        raise FailedPreconditionError("the activation batch has no rows; send at least one")
    return Row(
        model=batch.model,
        model_version=batch.model_version,
        activation=activations[0],
        history=history,
        passthrough={
            one.name: from_tensor(one.tensor, name=f"passthrough {one.name!r}", finite=True)[0]
            for one in batch.passthrough
        },
    )


def rows_of(batch: common_pb2.ActivationBatch) -> Rows:
    """All rows of a batch of histories; FailedPreconditionError when they do not say which history they are of."""
    activations = from_tensor(batch.activations, name="activations", dtype=np.float32, shape=(None, None), finite=True)
    if len(batch.subjects) != len(activations):
        raise FailedPreconditionError(
            f"the recommender answered {len(activations)} rows with {len(batch.subjects)} subjects; it must name one "
            "for each"
        )
    subject = np.array([one.history_index for one in batch.subjects], np.int64)
    return Rows(batch.model_version, activations, subject)
