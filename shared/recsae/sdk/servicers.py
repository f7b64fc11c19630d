"""gRPC adapters of the SDK: convert, ask the exporter, convert; errors leave with a sentence and a status."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from recsae.errors import FailedPreconditionError, InvalidRequestError, NotFoundError, RecsaeError
from recsae.rpc.deadline import Deadline
from recsae.rpc.limits import DEFAULT_ITEMS, MOST_ITEMS, Page, span
from recsae.rpc.request import REQUEST_ID_KEY, request_id_of
from recsae.rpc.status import rich_status
from recsae.sdk import messages
from recsae.telemetry.event_log import event_log
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc

if TYPE_CHECKING:
    from recsae.sdk.exporter import ExportedPage, Exporter

_log = event_log(__name__)

ACTIVATION_EXPORTER = "recsae.v1.ActivationExporter"
RECOMMENDER = "recsae.v1.Recommender"


class Models:
    """The models of a server by name, the first one the default."""

    def __init__(self, exporters: Sequence[Exporter]) -> None:
        """InvalidRequestError when there are none, or two of one name."""
        self._by_name = {exporter.name: exporter for exporter in exporters}
        self.names = tuple(self._by_name)
        if not exporters or len(self.names) < len(exporters):
            raise InvalidRequestError(
                f"models {[one.name for one in exporters]} came; give one or more, by different names"
            )

    def get(self, name: str, version: str = "") -> Exporter:
        """The model asked for; NotFoundError for another name, FailedPreconditionError for another version."""
        exporter = self._by_name.get(name or self.names[0])
        if exporter is None:
            raise NotFoundError(f"this server has no model {name!r}; it has {', '.join(map(repr, self.names))}")
        exporter.check(version)
        return exporter


class ExporterServicer(recommender_pb2_grpc.ActivationExporterServicer):
    """`recsae.v1.ActivationExporter`."""

    def __init__(self, models: Models) -> None:
        """Answers from them."""
        self._models = models

    def GetModel(  # noqa: N802
        self, request: recommender_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.GetModelResponse:
        """Describes the model."""
        with _answering(context):
            exporter = self._models.get(request.model)
            info = messages.model_info(exporter.card, exporter.model.head)
            return recommender_pb2.GetModelResponse(model=info, available_models=self._models.names)

    def Embed(  # noqa: N802
        self, request: recommender_pb2.EmbedRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.EmbedResponse:
        """Computes the activation of one user or history."""
        with _answering(context) as deadline:
            exporter = self._models.get(request.model)
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
            exporter = self._models.get(request.model, request.model_version)
            page = _page(exporter, request, deadline)
            batch = messages.batch_message(exporter.card, page.exported)
            return recommender_pb2.ExportActivationsResponse(batch=batch, next_cursor=page.next_cursor)

    def ExportItems(  # noqa: N802
        self, request: recommender_pb2.ExportItemsRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.ExportItemsResponse:
        """Lists a page of items."""
        with _answering(context):
            exporter = self._models.get(request.model, request.model_version)
            card = exporter.card
            page = Page(request.page.cursor, request.page.limit)
            room = card.most_rows(card.hooks[0])
            part = span(page, len(card.items), default=DEFAULT_ITEMS, most=MOST_ITEMS, room=room)
            answer = messages.items_message(card, exporter.model.head, part.first, part.last)
            answer.next_cursor = part.next_cursor
            return answer


class RankServicer(recommender_pb2_grpc.RecommenderServicer):
    """`recsae.v1.Recommender.Rank`; lists for users are the host server's own business."""

    def __init__(self, models: Models) -> None:
        """Answers from them."""
        self._models = models

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
            exporter = self._models.get(request.model, request.model_version)
            return messages.rank_message(exporter.card, exporter.rank(messages.rank_ask(request), deadline))


def _page(exporter: Exporter, request: recommender_pb2.ExportActivationsRequest, deadline: Deadline) -> ExportedPage:
    every = request.positions == recommender_pb2.POSITIONS_ALL
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
        case "users" if request.users.HasField("segment"):
            raise FailedPreconditionError(
                "this server keeps no attributes of its users, so it cannot tell who is in a segment; list all of them"
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
