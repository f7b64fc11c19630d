"""Recommenders with one defect each in Rank or Recommend, and the check that has to find it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tests.integration.conformance.small_exporter import (
    BIAS,
    DIM,
    PLACE,
    VECTORS,
    Floats,
    Row,
    SmallExporter,
)
from tests.integration.conformance.small_variants import Passthrough

from recsae.rpc.tensors import to_tensor
from recsae.v1 import common_pb2 as common
from recsae.v1 import recommender_pb2 as pb


class OneListForAll(SmallExporter):
    found_by = "ranking.answers"

    def rank(self, request: pb.RankRequest) -> pb.RankResponse:
        answer = super().rank(request)
        del answer.lists[1:]
        return answer


class TenItemsAlways(SmallExporter):
    found_by = "ranking.length"

    def rank(self, request: pb.RankRequest) -> pb.RankResponse:
        if request.k == 3:
            request.k = 10
        return super().rank(request)


class Unsorted(SmallExporter):
    found_by = "ranking.best-first"

    def rank(self, request: pb.RankRequest) -> pb.RankResponse:
        answer = super().rank(request)
        for ranked in answer.lists:
            if len(ranked.items) > 10:
                ranked.items.sort(key=lambda item: item.item_id)
        return answer


class ExclusionsIgnored(SmallExporter):
    found_by = "ranking.exclusions"

    def rank(self, request: pb.RankRequest) -> pb.RankResponse:
        del request.exclude[:]
        return super().rank(request)


class CandidatesIgnored(SmallExporter):
    found_by = "ranking.candidates"

    def rank(self, request: pb.RankRequest) -> pb.RankResponse:
        super().rank(request)
        del request.candidates[:]
        return super().rank(request)


class UnknownCandidatesDropped(SmallExporter):
    found_by = "ranking.unknown-candidate"

    def rank(self, request: pb.RankRequest) -> pb.RankResponse:
        for candidates in request.candidates:
            candidates.item_ids[:] = [item for item in candidates.item_ids if item in PLACE]
        return super().rank(request)


class ListsMixed(SmallExporter):
    """Each list gets a part of its neighbour's scores."""

    found_by = "ranking.alone"

    def rank(self, request: pb.RankRequest) -> pb.RankResponse:
        rows = np.frombuffer(request.activations.data, "<f4").reshape(request.activations.shape)
        if not request.exclude and not request.candidates and rows.shape[1] == DIM:
            request.activations.CopyFrom(to_tensor(rows + rows.mean(axis=0)))
        return super().rank(request)


class RanksTheSameForAll(SmallExporter):
    head = pb.HEAD_KIND_OPAQUE
    found_by = "ranking.reads"

    def scores(self, rows: Floats) -> Floats:
        return BIAS


class VectorsOfAnotherSpace(SmallExporter):
    found_by = "ranking.scores"

    def scores(self, rows: Floats) -> Floats:
        found: Floats = VECTORS @ rows[0] * np.float32(2) + BIAS
        return found


class NoReceipt(SmallExporter):
    found_by = "recommending.receipt"

    def recommend(self, request: pb.RecommendRequest) -> pb.RecommendResponse:
        answer = super().recommend(request)
        answer.ClearField("receipt")
        return answer


class SeenItemsComeBack(SmallExporter):
    found_by = "recommending.length"

    def recommend(self, request: pb.RecommendRequest) -> pb.RecommendResponse:
        seen = request.history.item_ids[0]
        answer = super().recommend(request)
        if len(request.history.item_ids) >= 10:
            answer.items[-1].item_id = seen
        return answer


class ExclusionsIgnoredInRecommend(SmallExporter):
    found_by = "recommending.candidates"

    def recommend(self, request: pb.RecommendRequest) -> pb.RecommendResponse:
        del request.exclude_item_ids[:]
        return super().recommend(request)


class AlwaysALittleSteered(SmallExporter):
    found_by = "recommending.unsteered"

    def recommend(self, request: pb.RecommendRequest) -> pb.RecommendResponse:
        answer = super().recommend(request)
        for item in answer.items:
            item.score += 1e-6 * abs(item.score) + 1e-6
        return answer


class PassthroughOfOneRow(Passthrough):
    found_by = "ranking.passthrough"

    def batch(self, rows: Sequence[Row]) -> common.ActivationBatch:
        batch = super().batch(rows)
        batch.passthrough[0].tensor.CopyFrom(to_tensor(np.ones(1, np.int64)))
        return batch

    def rank(self, request: pb.RankRequest) -> pb.RankResponse:
        return SmallExporter.rank(self, request)

    def recommend(self, request: pb.RecommendRequest) -> pb.RecommendResponse:
        return SmallExporter.recommend(self, request)


BROKEN: list[type[SmallExporter]] = [
    found
    for found in list(globals().values())
    if isinstance(found, type) and issubclass(found, SmallExporter) and found.found_by
]
