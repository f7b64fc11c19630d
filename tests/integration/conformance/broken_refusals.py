"""Exporters with one defect each in what they refuse, and in letting go, and the check that has to find it."""

from __future__ import annotations

import threading

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from tests.integration.conformance.small_exporter import (
    DIM,
    SmallExporter,
)

from recsae.errors import RecsaeError
from recsae.rpc.status import status_code
from recsae.rpc.tensors import to_tensor
from recsae.v1 import recommender_pb2 as pb


class VersionsMix(SmallExporter):
    found_by = "refusals.other-version"

    def export(self, request: pb.ExportActivationsRequest) -> pb.ExportActivationsResponse:
        request.model_version = ""
        return super().export(request)


class RankMixesVersions(SmallExporter):
    found_by = "refusals.ranked-version"

    def rank(self, request: pb.RankRequest) -> pb.RankResponse:
        request.model_version = ""
        return super().rank(request)


class AnyLength(SmallExporter):
    found_by = "refusals.wrong-dim"

    def rank(self, request: pb.RankRequest) -> pb.RankResponse:
        rows = np.frombuffer(request.activations.data, "<f4").reshape(request.activations.shape)
        request.activations.CopyFrom(to_tensor(np.ascontiguousarray(rows[:, :DIM])))
        return super().rank(request)


class BoundNotKept(SmallExporter):
    found_by = "refusals.rows"

    def info(self) -> pb.ModelInfo:
        info = super().info()
        info.max_export_rows = 100
        return info


class TooMuchHangs(SmallExporter):
    found_by = "refusals.bounds"

    def __init__(self) -> None:
        self.end = threading.Event()

    def export(self, request: pb.ExportActivationsRequest) -> pb.ExportActivationsResponse:
        if len(request.histories.histories) > 4_096:
            self.end.wait()
        return super().export(request)


class RankHangs(SmallExporter):
    found_by = "ranking.answers"

    def __init__(self) -> None:
        self.end = threading.Event()

    def rank(self, request: pb.RankRequest) -> pb.RankResponse:
        self.end.wait()
        return super().rank(request)


class TooLongCrashes(SmallExporter):
    found_by = "refusals.lists"

    def rank(self, request: pb.RankRequest) -> pb.RankResponse:
        if request.k > 1_000:
            raise RecsaeError("out of memory in the top k")
        return super().rank(request)


class StatusAlone(SmallExporter):
    found_by = "refusals.sentences"

    def answered(self, function, request, context: grpc.ServicerContext):  # type: ignore[no-untyped-def]
        try:
            return function(request)
        except RecsaeError as error:
            context.abort(status_code(error), "no")


class WorksOnForNobody(SmallExporter):
    """Goes on computing when the caller has gone, with every thread it has."""

    found_by = "serving.abandoned"

    def __init__(self) -> None:
        self.end = threading.Event()

    def ExportActivations(
        self, request: pb.ExportActivationsRequest, context: grpc.ServicerContext
    ) -> pb.ExportActivationsResponse:
        if (context.time_remaining() or 0) < 0.5:
            self.end.wait()
        return super().ExportActivations(request, context)


class NotServing(SmallExporter):
    found_by = "serving.health"

    def add_to(self, server: grpc.Server) -> None:
        super().add_to(server)
        servicer = health.HealthServicer()
        servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


BROKEN: list[type[SmallExporter]] = [
    found
    for found in list(globals().values())
    if isinstance(found, type) and issubclass(found, SmallExporter) and found.found_by
]
