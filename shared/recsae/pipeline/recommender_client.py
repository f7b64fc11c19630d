"""A `ModelSource` over gRPC: any recommender that implements `ActivationExporter` and, to rank, `Recommender.Rank`.

Splits requests by the rows a server returns at once and waits through restarts of up to a minute; every answer is
checked against what was asked before it is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import grpc
import numpy as np

from recsae.errors import FailedPreconditionError, InvalidRequestError, UnavailableError
from recsae.pipeline.sources import Floats, ItemActivations, ItemVectors, RankedItems, SourceModel
from recsae.rpc.status import error_from
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc

_CALL_S = 60.0
_WAIT_THROUGH_S = 60.0
_RETRY_EVERY_S = 1.0
_MAX_HISTORIES = 1_024
_MAX_ROWS = 16_384
_RANK_ROWS = 256
_ITEM_PAGE = 4_096

Request = TypeVar("Request", contravariant=True)
Answer = TypeVar("Answer", covariant=True)
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)


class _Method(Protocol[Request, Answer]):
    """A unary call of a stub."""

    def __call__(self, request: Request, /, *, timeout: float) -> Answer: ...


class RecommenderClient:
    """See `ModelSource`."""

    def __init__(self, channel: grpc.Channel, sleep: Callable[[float], None] = time.sleep) -> None:
        """`channel` from `recsae.rpc.client.channel`; the caller closes it."""
        self._exporter = recommender_pb2_grpc.ActivationExporterStub(channel)
        self._recommender = recommender_pb2_grpc.RecommenderStub(channel)
        self._sleep = sleep

    def describe(self, model: str) -> SourceModel:
        """See `ActivationSource`; reads the model's first hook."""
        answer = self._call(self._exporter.GetModel, recommender_pb2.GetModelRequest(model=model))
        info = answer.model
        if not info.hooks:
            raise FailedPreconditionError(f"model {info.name!r} names no hook; export it with at least one")
        hook = info.hooks[0]
        return SourceModel(
            name=info.name,
            version=info.version,
            hook=hook.name,
            dim=hook.dim,
            max_history=info.max_history,
            item_count=info.item_count,
            max_rows=min(info.max_export_rows or _MAX_ROWS, _MAX_ROWS),
            dot_product=info.head == recommender_pb2.HEAD_KIND_DOT_PRODUCT,
            all_positions=hook.all_positions,
        )

    def every_position(self, model: SourceModel, histories: Sequence[Sequence[str]]) -> Floats:
        """See `ActivationSource`."""
        if not model.all_positions:
            raise FailedPreconditionError(f"hook {model.hook!r} of {model.name} exports the last position only")
        return self._export(model, histories, [len(history) for history in histories], recommender_pb2.POSITIONS_ALL)

    def last_position(self, model: SourceModel, histories: Sequence[Sequence[str]]) -> Floats:
        """See `ActivationSource`."""
        return self._export(model, histories, [1] * len(histories), recommender_pb2.POSITIONS_LAST)

    def items(self, model: SourceModel) -> Iterator[ItemActivations]:
        """See `ActivationSource`."""
        cursor = ""
        while True:
            page = recommender_pb2.ItemPage(cursor=cursor, limit=min(_ITEM_PAGE, model.max_rows))
            answer = self._export_page(model, recommender_pb2.POSITIONS_LAST, items=page)
            x = _activations(model, answer.batch, len(answer.batch.subjects))
            yield ItemActivations(tuple(subject.item_id for subject in answer.batch.subjects), x)
            cursor = answer.next_cursor
            if not cursor:
                return

    def item_vectors(self, model: SourceModel) -> ItemVectors | None:
        """See `ItemSource`."""
        if not model.dot_product:
            return None
        ids: list[str] = []
        vectors: list[Floats] = []
        biases: list[Floats] = []
        cursor = ""
        while True:
            request = recommender_pb2.ExportItemsRequest(
                model=model.name,
                model_version=model.version,
                page=recommender_pb2.ItemPage(cursor=cursor, limit=_ITEM_PAGE),
            )
            answer = self._call(self._exporter.ExportItems, request)
            ids += answer.item_ids
            rows = len(answer.item_ids)
            vectors.append(from_tensor(answer.vectors, name="vectors", dtype=np.float32, shape=(rows, model.dim)))
            if answer.HasField("biases"):
                biases.append(from_tensor(answer.biases, name="biases", dtype=np.float32, shape=(rows,)))
            cursor = answer.next_cursor
            if not cursor:
                return ItemVectors(tuple(ids), np.concatenate(vectors), np.concatenate(biases) if biases else None)

    def rank(
        self, model: SourceModel, activations: Floats, k: int, exclude: Sequence[Sequence[str]]
    ) -> list[RankedItems]:
        """See `ItemSource`."""
        lists: list[RankedItems] = []
        for start in range(0, len(activations), _RANK_ROWS):
            rows = slice(start, start + _RANK_ROWS)
            request = recommender_pb2.RankRequest(
                model=model.name,
                model_version=model.version,
                activations=to_tensor(np.ascontiguousarray(activations[rows], dtype=np.float32)),
                k=k,
                exclude=[recommender_pb2.ItemList(item_ids=ids) for ids in exclude[rows]],
            )
            answer = self._call(self._recommender.Rank, request)
            if len(answer.lists) != len(activations[rows]):
                raise InvalidRequestError(f"Rank answered {len(answer.lists)} lists for {len(activations[rows])} rows")
            lists += [
                RankedItems(tuple(item.item_id for item in ranked.items), tuple(item.score for item in ranked.items))
                for ranked in answer.lists
            ]
        return lists

    def _export(
        self,
        model: SourceModel,
        histories: Sequence[Sequence[str]],
        rows_of: Sequence[int],
        positions: recommender_pb2.Positions.ValueType,
    ) -> Floats:
        parts: list[Floats] = []
        for begin, end in batches(rows_of, model.max_rows, _MAX_HISTORIES):
            given = recommender_pb2.HistoryList(
                histories=[common_pb2.History(item_ids=history) for history in histories[begin:end]]
            )
            answer = self._export_page(model, positions, histories=given)
            parts.append(_activations(model, answer.batch, sum(rows_of[begin:end])))
            _check_order(answer.batch, rows_of[begin:end], every=positions == recommender_pb2.POSITIONS_ALL)
        return np.concatenate(parts) if parts else np.zeros((0, model.dim), np.float32)

    def _export_page(
        self,
        model: SourceModel,
        positions: recommender_pb2.Positions.ValueType,
        *,
        histories: recommender_pb2.HistoryList | None = None,
        items: recommender_pb2.ItemPage | None = None,
    ) -> recommender_pb2.ExportActivationsResponse:
        request = recommender_pb2.ExportActivationsRequest(
            model=model.name,
            model_version=model.version,
            hook=model.hook,
            positions=positions,
            histories=histories,
            items=items,
        )
        return self._call(self._exporter.ExportActivations, request)

    def _call(self, method: _Method[Request, Answer], request: Request) -> Answer:
        deadline = time.monotonic() + _WAIT_THROUGH_S
        while True:
            try:
                return method(request, timeout=_CALL_S)
            except grpc.RpcError as error:
                code = error.code() if isinstance(error, grpc.Call) else None
                if code not in _RETRIED:
                    raise error_from(error) from error
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"the recommender did not answer for {_WAIT_THROUGH_S:.0f} s ({error_from(error)}); start it"
                    ) from error
            self._sleep(_RETRY_EVERY_S)  # a restarting server has no event to wait for


def batches(rows_of: Sequence[int], max_rows: int, max_histories: int) -> Iterator[tuple[int, int]]:
    """Spans [begin, end) of histories of at most `max_rows` rows together; a longer history goes alone."""
    begin, rows = 0, 0
    for index, count in enumerate(rows_of):
        if index > begin and (rows + count > max_rows or index - begin >= max_histories):
            yield begin, index
            begin, rows = index, 0
        rows += count
    if begin < len(rows_of):
        yield begin, len(rows_of)


def _activations(model: SourceModel, batch: common_pb2.ActivationBatch, rows: int) -> Floats:
    if batch.model_version != model.version:
        raise FailedPreconditionError(
            f"model {model.name} changed from version {model.version} to {batch.model_version} during the run; "
            "start a new run"
        )
    return from_tensor(batch.activations, name="activations", dtype=np.float32, shape=(rows, model.dim), finite=True)


def _check_order(batch: common_pb2.ActivationBatch, rows_of: Sequence[int], *, every: bool) -> None:
    """InvalidRequestError unless rows come by history, then position: a mix-up would poison everything learnt."""
    histories = np.fromiter((subject.history_index for subject in batch.subjects), np.int64, len(batch.subjects))
    wanted = np.repeat(np.arange(len(rows_of)), rows_of)
    if not np.array_equal(histories, wanted):
        raise InvalidRequestError("the recommender returned rows in another order than the histories asked for")
    if every:
        positions = np.fromiter((subject.position for subject in batch.subjects), np.int64, len(batch.subjects))
        if not np.array_equal(positions, np.concatenate([np.arange(1, count + 1) for count in rows_of])):
            raise InvalidRequestError("the recommender returned positions that do not run from 1 in each history")
