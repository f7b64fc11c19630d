"""gRPC adapters of the SDK: convert, ask the exporter, convert; errors leave with a sentence and a status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from recsae.errors import InvalidRequestError, RecsaeError
from recsae.rpc.deadline import Deadline
from recsae.rpc.request import REQUEST_ID_KEY, request_id_of
from recsae.rpc.status import rich_status
from recsae.sdk import messages
from recsae.sdk.limits import DEFAULT_ITEMS, MOST_ITEMS, Page, most_rows, span
from recsae.telemetry.event_log import event_log
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc

if TYPE_CHECKING:
    from recsae.sdk.exporter import ExportedPage, Exporter

_log = event_log(__name__)

ACTIVATION_EXPORTER = "recsae.v1.ActivationExporter"
RECOMMENDER = "recsae.v1.Recommender"


class ExporterServicer(recommender_pb2_grpc.ActivationExporterServicer):
    """`recsae.v1.ActivationExporter` of one model."""

    def __init__(self, exporter: Exporter) -> None:
        """Answers from `exporter`."""
        self._exporter = exporter

    def GetModel(  # noqa: N802
        self, request: recommender_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.GetModelResponse:
        """Describes the model."""
        with _answering(context):
            exporter = self._exporter
            exporter.check(request.model, "")
            info = messages.model_info(exporter.card, exporter.model.head)
            return recommender_pb2.GetModelResponse(model=info, available_models=[exporter.name])

    def Embed(  # noqa: N802
        self, request: recommender_pb2.EmbedRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.EmbedResponse:
        """Computes the activation of one user or history."""
        with _answering(context) as deadline:
            exporter = self._exporter
            exporter.check(request.model, "")
            subject, candidates = messages.subject_of(request), list(request.candidate_item_ids)
            exported, case = exporter.embed(subject, hook=request.hook, candidates=candidates, deadline=deadline)
            return recommender_pb2.EmbedResponse(
                batch=messages.batch_message(exporter.card, exported),
                history=common_pb2.History(item_ids=case.item_ids),
            )

    def ExportActivations(  # noqa: N802
        self, request: recommender_pb2.ExportActivationsRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.ExportActivationsResponse:
        """Computes a page of activations."""
        with _answering(context) as deadline:
            self._exporter.check(request.model, request.model_version)
            page = self._page(request, deadline)
            batch = messages.batch_message(self._exporter.card, page.exported)
            return recommender_pb2.ExportActivationsResponse(batch=batch, next_cursor=page.next_cursor)

    def ExportItems(  # noqa: N802
        self, request: recommender_pb2.ExportItemsRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.ExportItemsResponse:
        """Lists a page of items."""
        with _answering(context):
            exporter, card = self._exporter, self._exporter.card
            exporter.check(request.model, request.model_version)
            page = Page(request.page.cursor, request.page.limit)
            room = most_rows(card.hooks[0].dim)
            part = span(page, len(card.items), default=DEFAULT_ITEMS, most=MOST_ITEMS, room=room)
            answer = messages.items_message(card, exporter.model.head, part.first, part.last)
            answer.next_cursor = part.next_cursor
            return answer

    def _page(self, request: recommender_pb2.ExportActivationsRequest, deadline: Deadline) -> ExportedPage:
        exporter, every = self._exporter, request.positions == recommender_pb2.POSITIONS_ALL
        candidates = list(request.candidate_item_ids)
        match request.WhichOneof("source"):
            case "histories" | "subjects":
                return exporter.export(
                    messages.subjects_of(request),
                    hook=request.hook,
                    every_position=every,
                    candidates=candidates,
                    deadline=deadline,
                )
            case "users":
                return exporter.export_users(
                    Page(request.users.cursor, request.users.limit),
                    hook=request.hook,
                    every_position=every,
                    candidates=candidates,
                    deadline=deadline,
                )
            case "items" if candidates:
                raise InvalidRequestError("candidates go with users or histories; leave them out for items")
            case "items":
                page = Page(request.items.cursor, request.items.limit)
                return exporter.export_items(page, hook=request.hook, deadline=deadline)
        raise InvalidRequestError("no source came; set histories, subjects, users or items")


class RankServicer(recommender_pb2_grpc.RecommenderServicer):
    """`recsae.v1.Recommender.Rank` of one model; lists for users are the host server's own business."""

    def __init__(self, exporter: Exporter) -> None:
        """Answers from `exporter`."""
        self._exporter = exporter

    def Recommend(  # noqa: N802
        self, request: recommender_pb2.RecommendRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.RecommendResponse:
        """Refused: the host server recommends."""
        context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            "this server exports activations and ranks from them; ask the recommender it belongs to for lists",
        )

    def Rank(  # noqa: N802
        self, request: recommender_pb2.RankRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.RankResponse:
        """Ranks items from activations."""
        with _answering(context) as deadline:
            self._exporter.check(request.model, request.model_version)
            lists = self._exporter.rank(messages.rank_ask(request), deadline)
            return messages.rank_message(self._exporter.card, lists)


@contextmanager
def _answering(context: grpc.ServicerContext) -> Iterator[Deadline]:
    """Answers one call inside, given its deadline; errors become a status, unforeseen ones without internals."""
    metadata = {str(key): value for key, value in context.invocation_metadata() if isinstance(value, str)}
    request_id = request_id_of(metadata)
    context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
    try:
        yield Deadline.after(context.time_remaining())
    except Exception as error:
        if not isinstance(error, RecsaeError):
            _log.error("call_failed", request_id=request_id, exc_info=error)
        context.abort_with_status(rich_status(error, request_id))
