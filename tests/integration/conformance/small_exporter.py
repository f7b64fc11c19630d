"""A small recommender in memory that keeps the whole contract: what the kit's broken exporters are made from.

The activation of a history is a decaying sum of item vectors, so every position is plain to compute, and a row never
depends on its neighbours. `small_variants` are of other kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError, InvalidRequestError, NotFoundError, RecsaeError
from recsae.rpc.status import status_code
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.v1 import common_pb2 as common
from recsae.v1 import recommender_pb2 as pb
from recsae.v1 import recommender_pb2_grpc

Answer = TypeVar("Answer")
Floats = NDArray[np.float32]
Row = tuple[Floats, common.RowSubject]

N_ITEMS, DIM, MAX_HISTORY = 24, 6, 10
ITEMS = [f"a{number}" for number in range(N_ITEMS)]
PLACE = {item: place for place, item in enumerate(ITEMS)}
USERS = [f"u{number}" for number in range(9)]
VECTORS = np.sin(np.arange(N_ITEMS * DIM, dtype=np.float32) * np.float32(1.7)).reshape(N_ITEMS, DIM)
BIAS = np.linspace(-0.1, 0.1, N_ITEMS, dtype=np.float32)


class SmallExporter(recommender_pb2_grpc.ActivationExporterServicer, recommender_pb2_grpc.RecommenderServicer):
    """One row per subject, dot-product head."""

    found_by = ""
    """Of a broken exporter: the check that has to find it."""
    name, version, other_version = "small", "0123456789abcdef", ""
    rows = pb.ROW_KIND_SUBJECT
    decays: Sequence[float] = (0.8,)
    attributes: Sequence[str] = ()
    ignores_history = reads_user_id = False
    all_positions = True
    head = pb.HEAD_KIND_DOT_PRODUCT
    max_export_rows = 400

    # What the model computes.

    def activation(self, history: Sequence[str], subject: pb.Subject) -> Floats:
        """float32 [interests, d] of a history's newest items."""
        found = np.zeros((len(self.decays), DIM), np.float32)
        for item in history[-MAX_HISTORY:]:
            found = found * np.array(self.decays, np.float32)[:, None] + VECTORS[PLACE[item]]
        return found

    def scores(self, rows: Floats) -> Floats:
        """float32 [items] of the rows of one list."""
        scores: Floats = np.max([VECTORS @ row + BIAS for row in rows], axis=0)
        return scores

    # What the server makes of it.

    def info(self) -> pb.ModelInfo:
        hook = pb.HookInfo(
            name="state",
            side=common.SIDE_USER,
            dim=DIM,
            steerable=True,
            all_positions=self.all_positions,
            rows=self.rows,
            interests=len(self.decays) if len(self.decays) > 1 else 0,
        )
        return pb.ModelInfo(
            name=self.name,
            version=self.version,
            family="small",
            hooks=[hook],
            max_history=MAX_HISTORY,
            item_count=N_ITEMS,
            head=self.head,
            max_export_rows=self.max_export_rows,
            ignores_history=self.ignores_history,
            reads_user_id=self.reads_user_id,
            attributes=self.attributes,
        )

    def known(self, history: Sequence[str]) -> list[str]:
        return [item for item in history if item in PLACE]

    def rows_of(self, subject: pb.Subject, index: int, positions: int, candidates: Sequence[str]) -> Iterator[Row]:
        """Rows of one subject, in the contract's order."""
        history = self.known(subject.history.item_ids)
        if not history and not self.ignores_history:
            raise InvalidRequestError(f"history {index} has no item of this model; leave it out")
        first = max(1, len(history) - MAX_HISTORY + 1) if positions == pb.POSITIONS_ALL else len(history)
        window = history[-MAX_HISTORY:]
        for position in range(first, len(history) + 1):
            for interest, row in enumerate(self.activation(window[: len(window) - len(history) + position], subject)):
                yield row, self.subject(subject.user_id, "", interest, position, index)

    def subject(self, user: str, item: str, interest: int, position: int, index: int) -> common.RowSubject:
        return common.RowSubject(user_id=user, item_id=item, interest=interest, position=position, history_index=index)

    def tensor(self, array: Floats) -> common.Tensor:
        return to_tensor(array)

    def batch(self, rows: Sequence[Row]) -> common.ActivationBatch:
        array = np.array([row for row, _ in rows], np.float32).reshape(-1, DIM)
        subjects = [subject for _, subject in rows]
        return common.ActivationBatch(
            model=self.name,
            model_version=self.version,
            hook="state",
            side=common.SIDE_USER,
            activations=self.tensor(array),
            subjects=subjects,
        )

    def span(self, cursor: str, limit: int, total: int, default: int, most: int) -> tuple[int, int, str]:
        if limit > most:
            raise InvalidRequestError(f"limit {limit} came; ask for at most {most}")
        start = int(cursor or 0)
        end = min(start + min(limit or default, self.max_export_rows // len(self.decays)), total)
        return start, end, str(end) if end < total else ""

    def check(self, model: str, version: str = "") -> None:
        if model not in ("", self.name):
            raise NotFoundError(f"there is no model {model!r}; there is {self.name}")
        if version not in ("", self.version):
            raise FailedPreconditionError(f"version {self.version} is loaded, not {version}; ask for that one")

    def get_model(self, request: pb.GetModelRequest) -> pb.GetModelResponse:
        self.check(request.model)
        return pb.GetModelResponse(model=self.info(), available_models=[self.name])

    def export(self, request: pb.ExportActivationsRequest) -> pb.ExportActivationsResponse:
        self.check(request.model, request.model_version)
        if request.hook not in ("", "state"):
            raise NotFoundError(f"there is no hook {request.hook!r}; there is 'state'")
        if request.candidate_item_ids and self.rows != pb.ROW_KIND_PAIR:
            raise InvalidRequestError("candidates came for a hook with a row per subject; leave them out")
        source, cursor = request.WhichOneof("source"), ""
        if source == "items":
            start, end, cursor = self.span(request.items.cursor, request.items.limit, N_ITEMS, 4_096, 65_536)
            return pb.ExportActivationsResponse(batch=self.batch(self.item_rows(start, end)), next_cursor=cursor)
        if source == "users":
            self.check_segment(request.users)
            start, end, cursor = self.span(request.users.cursor, request.users.limit, len(USERS), 512, 4_096)
            given = [self.user(place) for place in range(start, end)]
        elif source == "subjects":
            given = list(request.subjects.subjects)
        else:
            given = [pb.Subject(history=history) for history in request.histories.histories]
        if len(given) > 4_096:
            raise InvalidRequestError(f"{len(given)} histories came; send at most 4096")
        rows = [
            row
            for index, subject in enumerate(given)
            for row in self.rows_of(subject, index, request.positions, request.candidate_item_ids)
        ]
        if len(rows) > self.max_export_rows:
            raise InvalidRequestError(f"{len(rows)} rows would come back; ask for at most {self.max_export_rows}")
        return pb.ExportActivationsResponse(batch=self.batch(rows), next_cursor=cursor)

    def check_segment(self, users: pb.UserPage) -> None:
        if users.HasField("segment"):
            raise FailedPreconditionError("this server keeps no attributes of users; list all of them")

    def item_rows(self, start: int, end: int) -> list[Row]:
        found = []
        for index, item in enumerate(ITEMS[start:end]):
            probe = pb.Subject(history=common.History(item_ids=[item]))
            for row, subject in self.rows_of(probe, index, pb.POSITIONS_LAST, ()):
                subject.item_id = item
                found.append((row, subject))
        return found

    def user(self, place: int) -> pb.Subject:
        return pb.Subject(user_id=USERS[place], history=common.History(item_ids=ITEMS[place : place + 4]))

    def embed(self, request: pb.EmbedRequest) -> pb.EmbedResponse:
        self.check(request.model)
        subject = pb.Subject(user_id=request.user_id, history=request.history, attributes=request.attributes)
        rows = list(self.rows_of(subject, 0, pb.POSITIONS_LAST, request.candidate_item_ids))
        return pb.EmbedResponse(batch=self.batch(rows), history=subject.history)

    def export_items(self, request: pb.ExportItemsRequest) -> pb.ExportItemsResponse:
        self.check(request.model, request.model_version)
        start, end, cursor = self.span(request.page.cursor, request.page.limit, N_ITEMS, 4_096, 65_536)
        answer = pb.ExportItemsResponse(item_ids=ITEMS[start:end], model_version=self.version, next_cursor=cursor)
        if self.head == pb.HEAD_KIND_DOT_PRODUCT:
            answer.vectors.CopyFrom(to_tensor(VECTORS[start:end]))
            answer.biases.CopyFrom(to_tensor(BIAS[start:end]))
        return answer

    def rank(self, request: pb.RankRequest) -> pb.RankResponse:
        self.check(request.model, request.model_version)
        rows = from_tensor(request.activations, name="activations", dtype=np.float32, shape=(None, DIM))
        if request.k > 1_000:
            raise InvalidRequestError(f"k = {request.k}; ask for at most 1000")
        per = len(request.candidates[0].item_ids) if self.rows == pb.ROW_KIND_PAIR else len(self.decays)
        lists = [rows[start : start + per] for start in range(0, len(rows), per)]
        if len(lists) > 1_024:
            raise InvalidRequestError(f"{len(lists)} lists came; send at most 1024")
        ranked = []
        start = 0
        for place in range(len(request.candidates) if self.rows == pb.ROW_KIND_PAIR else len(lists)):
            candidates = list(request.candidates[place].item_ids) if request.candidates else []
            part = rows[start : start + len(candidates)] if self.rows == pb.ROW_KIND_PAIR else lists[place]
            start += len(candidates)
            excluded = set(request.exclude[place].item_ids) if request.exclude else set()
            ranked.append(self.ranked(part, request.k or 10, excluded, candidates))
        return pb.RankResponse(lists=ranked, model_version=self.version)

    def ranked(self, rows: Floats, k: int, exclude: set[str], candidates: Sequence[str]) -> pb.RankedList:
        unknown = [item for item in candidates if item not in PLACE]
        if unknown:
            raise InvalidRequestError(f"item {unknown[0]!r} is unknown; leave it out")
        scores = self.scores(rows)
        allowed = [item for item in candidates or ITEMS if item not in exclude]
        places = {item: place for place, item in enumerate(candidates)} if self.rows == pb.ROW_KIND_PAIR else PLACE
        best = sorted(allowed, key=lambda item: -scores[places[item]])[:k]
        return pb.RankedList(items=[common.ScoredItem(item_id=item, score=scores[places[item]]) for item in best])

    def recommend(self, request: pb.RecommendRequest) -> pb.RecommendResponse:
        self.check(request.model)
        subject = pb.Subject(user_id=request.user_id, history=request.history, attributes=request.attributes)
        pairs = list(request.candidate_item_ids) if self.rows == pb.ROW_KIND_PAIR else []
        rows = np.array([row for row, _ in self.rows_of(subject, 0, pb.POSITIONS_LAST, pairs)], np.float32)
        excluded = set(request.exclude_item_ids) | (set() if request.include_seen else set(request.history.item_ids))
        triple = common.Triple(model_version=self.version)
        return pb.RecommendResponse(
            items=self.ranked(rows, request.k or 10, excluded, list(request.candidate_item_ids)).items,
            model=self.name,
            triple=triple,
            receipt=self.receipt(triple),
            request_id="r",
        )

    def receipt(self, triple: common.Triple) -> common.Receipt:
        return common.Receipt(reason=common.UNSTEERED_REASON_NO_PLAN, triple=triple)

    # gRPC.

    def add_to(self, server: grpc.Server) -> None:
        recommender_pb2_grpc.add_ActivationExporterServicer_to_server(self, server)
        recommender_pb2_grpc.add_RecommenderServicer_to_server(self, server)

    def answered(self, function: Callable[[Any], Answer], request: Any, context: grpc.ServicerContext) -> Answer:
        try:
            return function(request)
        except RecsaeError as error:
            context.abort(status_code(error), str(error))

    def GetModel(self, request: pb.GetModelRequest, context: grpc.ServicerContext) -> pb.GetModelResponse:
        return self.answered(self.get_model, request, context)

    def ExportActivations(
        self, request: pb.ExportActivationsRequest, context: grpc.ServicerContext
    ) -> pb.ExportActivationsResponse:
        return self.answered(self.export, request, context)

    def Embed(self, request: pb.EmbedRequest, context: grpc.ServicerContext) -> pb.EmbedResponse:
        return self.answered(self.embed, request, context)

    def ExportItems(self, request: pb.ExportItemsRequest, context: grpc.ServicerContext) -> pb.ExportItemsResponse:
        return self.answered(self.export_items, request, context)

    def Rank(self, request: pb.RankRequest, context: grpc.ServicerContext) -> pb.RankResponse:
        return self.answered(self.rank, request, context)

    def Recommend(self, request: pb.RecommendRequest, context: grpc.ServicerContext) -> pb.RecommendResponse:
        return self.answered(self.recommend, request, context)


@contextmanager
def serving(*add: Callable[[grpc.Server], None]) -> Iterator[str]:
    """Serves what the functions add, on a free loopback port while the block runs; gives the address."""
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    for one in add:
        one(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
