"""gRPC adapters of the recommender: convert, call one handler, convert."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc

from recsae.rpc.request import require_request
from recsae.v1 import recommender_pb2, recommender_pb2_grpc
from recsae_recommender import convert
from recsae_recommender.handlers.embed import EmbedHandler
from recsae_recommender.handlers.export import ExportHandler
from recsae_recommender.handlers.items import ItemsHandler, ItemsQuery
from recsae_recommender.handlers.rank import RankHandler
from recsae_recommender.handlers.recommend import RecommendHandler
from recsae_recommender.handlers.sources import ItemPage
from recsae_recommender.models import ModelTable

RECOMMENDER = "recsae.v1.Recommender"
ACTIVATION_EXPORTER = "recsae.v1.ActivationExporter"


@dataclass(frozen=True)
class RecommenderServicer(recommender_pb2_grpc.RecommenderServicer):
    """`recsae.v1.Recommender`."""

    recommend: RecommendHandler
    rank: RankHandler
    receipts: convert.ReceiptMessages = field(default_factory=convert.ReceiptMessages)

    def Recommend(
        self, request: recommender_pb2.RecommendRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.RecommendResponse:
        """Ranks items for one user."""
        info = require_request()
        return convert.recommend_response(self.recommend(convert.recommend_query(request, info)), info, self.receipts)

    def Rank(self, request: recommender_pb2.RankRequest, context: grpc.ServicerContext) -> recommender_pb2.RankResponse:
        """Ranks items from activations."""
        return convert.rank_response(self.rank(convert.rank_query(request)))


@dataclass(frozen=True)
class ActivationExporterServicer(recommender_pb2_grpc.ActivationExporterServicer):
    """`recsae.v1.ActivationExporter`."""

    models: ModelTable
    embed: EmbedHandler
    export: ExportHandler
    items: ItemsHandler

    def GetModel(
        self, request: recommender_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.GetModelResponse:
        """Describes one model."""
        model = self.models.get(request.model)
        return recommender_pb2.GetModelResponse(
            model=convert.model_info(model.recommender), available_models=self.models.names
        )

    def Embed(
        self, request: recommender_pb2.EmbedRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.EmbedResponse:
        """Computes the activation of one user or history."""
        return convert.embed_response(self.embed(convert.embed_query(request)))

    def ExportActivations(
        self, request: recommender_pb2.ExportActivationsRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.ExportActivationsResponse:
        """Computes a page of activations."""
        return convert.export_response(self.export(convert.export_query(request, require_request())))

    def ExportItems(
        self, request: recommender_pb2.ExportItemsRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.ExportItemsResponse:
        """Lists a page of items."""
        page = ItemPage(request.page.cursor, request.page.limit)
        return convert.items_response(self.items(ItemsQuery(page, request.model, request.model_version)))
