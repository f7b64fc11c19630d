"""A `ModelSource` over gRPC: any recommender that implements `ActivationExporter` and, to rank, `Recommender.Rank`.

Splits requests by the rows a server returns at once; every answer is checked against what was asked before it is used
(`recommender_answers`). Servers are asked for bare histories where a model reads nothing else, as older ones expect.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import grpc
import numpy as np

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.pipeline import recommender_answers as answers
from recsae.pipeline.recommender_calls import NotImplementedByServerError, batches, call
from recsae.pipeline.sources import (
    PAIR,
    CannotRankError,
    Crossing,
    Floats,
    ItemActivations,
    ItemVectors,
    RankedItems,
    SourceModel,
    Subject,
    Tensors,
)
from recsae.recommenders.address import split_address
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.steering.wire import attribute_message
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc

_MAX_SUBJECTS = 1_024
_RANK_LISTS = 256
_ITEM_PAGE = 4_096
# Most candidates the contract takes at once.
_MAX_CANDIDATES = 10_000

_LAST, _ALL = recommender_pb2.POSITIONS_LAST, recommender_pb2.POSITIONS_ALL


class RecommenderClient:
    """See `ModelSource`."""

    def __init__(self, channel: grpc.Channel, sleep: Callable[[float], None] = time.sleep) -> None:
        """`channel` from `recsae.rpc.client.channel`; the caller closes it."""
        self._exporter = recommender_pb2_grpc.ActivationExporterStub(channel)
        self._recommender = recommender_pb2_grpc.RecommenderStub(channel)
        self._sleep = sleep

    def describe(self, model: str) -> SourceModel:
        """See `ActivationSource`."""
        request = recommender_pb2.GetModelRequest(model=split_address(model).model)
        return answers.source_model(call(self._exporter.GetModel, request, self._sleep).model, model)

    def every_position(self, model: SourceModel, subjects: Sequence[Subject]) -> Floats:
        """See `ActivationSource`."""
        if not model.all_positions:
            raise FailedPreconditionError(f"hook {model.hook!r} of {model.served_as} exports the last position only")
        rows_of = [len(subject.history) for subject in subjects]
        return _joined(model, [x for x, _ in self._export(model, subjects, rows_of, _ALL)])

    def last_position(self, model: SourceModel, subjects: Sequence[Subject]) -> Floats:
        """See `ActivationSource`."""
        return _joined(model, [x for x, _ in self._export(model, subjects, [1] * len(subjects), _LAST)])

    def items(self, model: SourceModel) -> Iterator[ItemActivations]:
        """See `ActivationSource`."""
        cursor = ""
        while True:
            page = recommender_pb2.ItemPage(cursor=cursor, limit=min(_ITEM_PAGE, _rows_at_once(model)))
            answer = self._export_page(model, _LAST, items=page)
            subjects = answer.batch.subjects[:: model.interests]
            x = answers.activations(model, answer.batch, len(subjects))
            yield ItemActivations(tuple(subject.item_id for subject in subjects), x)
            cursor = answer.next_cursor
            if not cursor:
                return

    def item_ids(self, model: SourceModel) -> tuple[str, ...]:
        """See `ItemSource`."""
        return tuple(item_id for page in self._item_pages(model) for item_id in page.item_ids)

    def item_vectors(self, model: SourceModel) -> ItemVectors | None:
        """See `ItemSource`."""
        if not model.dot_product:
            return None
        ids: list[str] = []
        vectors: list[Floats] = []
        biases: list[Floats] = []
        for page in self._item_pages(model):
            ids += page.item_ids
            rows = len(page.item_ids)
            vectors.append(from_tensor(page.vectors, name="vectors", dtype=np.float32, shape=(rows, model.dim)))
            if page.HasField("biases"):
                biases.append(from_tensor(page.biases, name="biases", dtype=np.float32, shape=(rows,)))
        return ItemVectors(tuple(ids), np.concatenate(vectors), np.concatenate(biases) if biases else None)

    def crossing(self, model: SourceModel, subjects: Sequence[Subject], candidates: Sequence[str] = ()) -> Crossing:
        """See `ItemSource`."""
        step = min(_MAX_CANDIDATES, model.max_rows)
        slices = [candidates[at : at + step] for at in range(0, len(candidates), step)] or [()]
        # A subject whose candidates take several calls goes alone, so that its rows follow each other.
        at_once = len(subjects) if len(slices) == 1 else 1
        found = [
            part
            for begin in range(0, len(subjects), max(1, at_once))
            for few in slices
            for part in self._export(
                model,
                subjects[begin : begin + at_once],
                [max(1, len(few))] * len(subjects[begin : begin + at_once]),
                _LAST,
                few,
            )
        ]
        names = found[0][1] if found else {}
        tensors = {name: np.concatenate([tensors[name] for _, tensors in found]) for name in names}
        return Crossing(_joined(model, [x for x, _ in found]), tensors)

    def rank(
        self,
        model: SourceModel,
        activations: Floats,
        k: int,
        exclude: Sequence[Sequence[str]],
        candidates: Sequence[str] = (),
        passthrough: Tensors | None = None,
    ) -> list[RankedItems]:
        """See `ItemSource`."""
        pieces = _pieces(model, len(exclude), candidates)
        ranked: list[list[RankedItems]] = [[] for _ in exclude]
        for begin, end in batches([piece.rows for piece in pieces], model.max_rows, _RANK_LISTS):
            asked = pieces[begin:end]
            rows = slice(asked[0].begin, asked[-1].begin + asked[-1].rows)
            request = recommender_pb2.RankRequest(
                model=model.served_as,
                model_version=model.version,
                activations=to_tensor(np.ascontiguousarray(activations[rows], dtype=np.float32)),
                passthrough=[
                    common_pb2.NamedTensor(name=name, tensor=to_tensor(np.ascontiguousarray(tensor[rows])))
                    for name, tensor in (passthrough or {}).items()
                ],
                k=k,
                exclude=[recommender_pb2.ItemList(item_ids=exclude[piece.of]) for piece in asked],
                candidates=[recommender_pb2.ItemList(item_ids=piece.candidates) for piece in asked if piece.candidates],
            )
            answer = self._ranked(request)
            if len(answer.lists) != len(asked):
                raise InvalidRequestError(f"Rank answered {len(answer.lists)} lists for {len(asked)} asked for")
            for piece, found in zip(asked, answer.lists, strict=True):
                items = tuple(item.item_id for item in found.items)
                ranked[piece.of].append(RankedItems(items, tuple(item.score for item in found.items)))
        return [_best(parts, k) for parts in ranked]

    def _ranked(self, request: recommender_pb2.RankRequest) -> recommender_pb2.RankResponse:
        try:
            return call(self._recommender.Rank, request, self._sleep)
        except NotImplementedByServerError as error:
            raise CannotRankError("the recommender does not implement Rank") from error

    def _export(
        self,
        model: SourceModel,
        subjects: Sequence[Subject],
        rows_of: Sequence[int],
        positions: recommender_pb2.Positions.ValueType,
        candidates: Sequence[str] = (),
    ) -> Iterator[tuple[Floats, Tensors]]:
        """Activations and what crossed the cut with them, a request at a time; `rows_of` counts interests as one."""
        for begin, end in batches(rows_of, _rows_at_once(model), _MAX_SUBJECTS):
            few, rows = subjects[begin:end], sum(rows_of[begin:end])
            if model.reads_history_alone:
                given = [common_pb2.History(item_ids=subject.history) for subject in few]
                ask = partial(self._export_page, histories=recommender_pb2.HistoryList(histories=given))
            else:
                named = [_subject_message(subject) for subject in few]
                ask = partial(self._export_page, subjects=recommender_pb2.SubjectList(subjects=named))
            answer = ask(model, positions, candidates=candidates)
            x = answers.activations(model, answer.batch, rows)
            answers.check_order(model, answer.batch, rows_of[begin:end], every=positions == _ALL)
            if candidates:
                answers.check_candidates(answer.batch, candidates, len(few))
            yield x, answers.passthrough(answer.batch, rows * model.interests)

    def _export_page(
        self,
        model: SourceModel,
        positions: recommender_pb2.Positions.ValueType,
        *,
        histories: recommender_pb2.HistoryList | None = None,
        subjects: recommender_pb2.SubjectList | None = None,
        items: recommender_pb2.ItemPage | None = None,
        candidates: Sequence[str] = (),
    ) -> recommender_pb2.ExportActivationsResponse:
        request = recommender_pb2.ExportActivationsRequest(
            model=model.served_as,
            model_version=model.version,
            hook=model.hook,
            positions=positions,
            histories=histories,
            subjects=subjects,
            items=items,
            candidate_item_ids=candidates,
        )
        return call(self._exporter.ExportActivations, request, self._sleep)

    def _item_pages(self, model: SourceModel) -> Iterator[recommender_pb2.ExportItemsResponse]:
        cursor = ""
        while True:
            page = recommender_pb2.ItemPage(cursor=cursor, limit=_ITEM_PAGE)
            request = recommender_pb2.ExportItemsRequest(model=model.served_as, model_version=model.version, page=page)
            answer = call(self._exporter.ExportItems, request, self._sleep)
            yield answer
            cursor = answer.next_cursor
            if not cursor:
                return


@dataclass(frozen=True)
class _Piece:
    """Rows [begin, begin + rows) of what is ranked: list number `of`, or a part of it over some of the candidates."""

    of: int
    begin: int
    rows: int
    candidates: Sequence[str] = ()


def _pieces(model: SourceModel, lists: int, candidates: Sequence[str]) -> list[_Piece]:
    if model.rows != PAIR:
        return [_Piece(at, at * model.interests, model.interests) for at in range(lists)]
    step = min(_MAX_CANDIDATES, model.max_rows)
    slices = [candidates[at : at + step] for at in range(0, len(candidates), step)]
    return [
        _Piece(of, of * len(candidates) + number * step, len(few), few)
        for of in range(lists)
        for number, few in enumerate(slices)
    ]


def _best(parts: Sequence[RankedItems], k: int) -> RankedItems:
    """One list of several over different candidates; equal scores stay in the order of the parts."""
    if len(parts) == 1:
        return parts[0]
    pairs = [pair for part in parts for pair in zip(part.scores, part.item_ids, strict=True)]
    pairs = sorted(pairs, key=lambda pair: -pair[0])[:k]
    return RankedItems(tuple(item_id for _, item_id in pairs), tuple(score for score, _ in pairs))


def _rows_at_once(model: SourceModel) -> int:
    return max(1, model.max_rows // model.interests)


def _joined(model: SourceModel, parts: Sequence[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.zeros((0, model.row_length), np.float32)


def _subject_message(subject: Subject) -> recommender_pb2.Subject:
    return recommender_pb2.Subject(
        user_id=subject.user_id,
        history=common_pb2.History(item_ids=subject.history),
        attributes={name: attribute_message(value) for name, value in subject.attributes.items()},
    )
