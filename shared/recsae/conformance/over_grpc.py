"""The service under test over gRPC: every call has a deadline, every failure becomes `RefusedError` and is remembered.

No retries beyond the channel's own: a kit that papers over faults finds none.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from recsae.conformance.asking import RefusedError, described
from recsae.v1 import recommender_pb2, recommender_pb2_grpc, steering_pb2, steering_pb2_grpc

Answer = TypeVar("Answer")


@dataclass
class GrpcService:
    """A recommender behind `channel` and, maybe, an interpreter behind `interpreter`. See `asking.Service`."""

    channel: grpc.Channel
    interpreter: grpc.Channel | None = None
    timeout_s: float = 10.0
    refusals: list[RefusedError] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Makes the stubs."""
        self._exporter = recommender_pb2_grpc.ActivationExporterStub(self.channel)
        self._recommender = recommender_pb2_grpc.RecommenderStub(self.channel)

    @property
    def has_interpreter(self) -> bool:
        """See `Service`."""
        return self.interpreter is not None

    def get_model(self, request: recommender_pb2.GetModelRequest) -> recommender_pb2.GetModelResponse:
        """See `Exporter`."""
        return self._call("GetModel", self._exporter.GetModel, request)

    def embed(self, request: recommender_pb2.EmbedRequest) -> recommender_pb2.EmbedResponse:
        """See `Exporter`."""
        return self._call("Embed", self._exporter.Embed, request)

    def export(self, request: recommender_pb2.ExportActivationsRequest) -> recommender_pb2.ExportActivationsResponse:
        """See `Exporter`."""
        return self._call("ExportActivations", self._exporter.ExportActivations, request)

    def export_items(self, request: recommender_pb2.ExportItemsRequest) -> recommender_pb2.ExportItemsResponse:
        """See `Exporter`."""
        return self._call("ExportItems", self._exporter.ExportItems, request)

    def rank(self, request: recommender_pb2.RankRequest) -> recommender_pb2.RankResponse:
        """See `Ranker`."""
        return self._call("Rank", self._recommender.Rank, request)

    def recommend(self, request: recommender_pb2.RecommendRequest) -> recommender_pb2.RecommendResponse:
        """See `Ranker`."""
        return self._call("Recommend", self._recommender.Recommend, request)

    def steer(self, request: steering_pb2.SteerRequest) -> steering_pb2.SteerResponse:
        """See `Service`."""
        assert self.interpreter is not None, "checked by has_interpreter"
        return self._call("Steer", steering_pb2_grpc.SteeringStub(self.interpreter).Steer, request)

    def health(self) -> str:
        """See `Service`."""
        stub = health_pb2_grpc.HealthStub(self.channel)
        reply = self._call("Health.Check", stub.Check, health_pb2.HealthCheckRequest())
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))

    def abandon(self, request: recommender_pb2.ExportActivationsRequest, calls: int, deadline_s: float) -> None:
        """See `Service`."""
        pending = [self._exporter.ExportActivations.future(request, timeout=deadline_s) for _ in range(calls)]
        for call in pending:
            with suppress(grpc.RpcError, grpc.FutureCancelledError):
                call.result()

    def _call(self, method: str, call: Callable[..., Answer], request: Message) -> Answer:
        try:
            return call(request, timeout=self.timeout_s)
        except grpc.RpcError as error:
            refused = RefusedError(method, described(method, request), *_facts(error))
            self.refusals.append(refused)
            raise refused from error


def _facts(error: Any) -> tuple[str, str]:
    if isinstance(error, grpc.Call):
        code = error.code()
        return code.name if code is not None else "UNKNOWN", error.details() or ""
    return "UNKNOWN", str(error)
