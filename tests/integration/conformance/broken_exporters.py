"""Exporters with one defect each, and the check that has to find it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence

import grpc
import numpy as np
from tests.integration.conformance.small_exporter import (
    BIAS,
    DIM,
    ITEMS,
    PLACE,
    VECTORS,
    Attributes,
    Floats,
    Interests,
    Pairs,
    Row,
    SmallExporter,
)

from recsae.errors import InvalidRequestError, RecsaeError
from recsae.rpc.status import status_code
from recsae.rpc.tensors import to_tensor
from recsae.v1 import common_pb2 as common
from recsae.v1 import recommender_pb2 as pb


class UnknownModelAnswered(SmallExporter):
    found_by = "model.unknown"

    def get_model(self, request: pb.GetModelRequest) -> pb.GetModelResponse:
        return pb.GetModelResponse(model=self.info(), available_models=[self.name])


class NotListed(SmallExporter):
    found_by = "model.listed"

    def get_model(self, request: pb.GetModelRequest) -> pb.GetModelResponse:
        self.check(request.model)
        return pb.GetModelResponse(model=self.info(), available_models=["another"])


class NoHooks(SmallExporter):
    found_by = "model.hooks"

    def info(self) -> pb.ModelInfo:
        info = super().info()
        del info.hooks[:]
        return info


class ReadsNoItem(SmallExporter):
    found_by = "model.limits"

    def info(self) -> pb.ModelInfo:
        info = super().info()
        info.max_history = 0
        return info


class VersionOfTheMoment(SmallExporter):
    found_by = "model.stable"

    def __init__(self) -> None:
        self.asked = itertools.count()

    def get_model(self, request: pb.GetModelRequest) -> pb.GetModelResponse:
        answer = super().get_model(request)
        if times := next(self.asked):
            answer.model.version = f"{times:016x}"
        return answer


class ItemsWithoutIds(SmallExporter):
    found_by = "model.items"

    def item_rows(self, start: int, end: int) -> list[Row]:
        rows = super().item_rows(start, end)
        for _, subject in rows:
            subject.item_id = ""
        return rows


class BigEndian(SmallExporter):
    found_by = "activations.tensor"

    def tensor(self, array: Floats) -> common.Tensor:
        tensor = to_tensor(array)
        tensor.data = array.astype(">f4").tobytes()
        return tensor


class Doubles(SmallExporter):
    found_by = "activations.tensor"

    def tensor(self, array: Floats) -> common.Tensor:
        tensor = to_tensor(array)
        tensor.data = array.astype("<f8").tobytes()
        return tensor


class Halves(SmallExporter):
    found_by = "activations.tensor"

    def tensor(self, array: Floats) -> common.Tensor:
        return to_tensor(array.astype(np.float16))


class Flat(SmallExporter):
    found_by = "activations.tensor"

    def tensor(self, array: Floats) -> common.Tensor:
        return to_tensor(array.reshape(-1))


class NotFinite(SmallExporter):
    found_by = "activations.finite"

    def activation(self, history: Sequence[str], subject: pb.Subject) -> Floats:
        found = super().activation(history, subject)
        found[0, 0] = np.nan
        return found


class SubjectsInAnotherOrder(SmallExporter):
    found_by = "activations.order"

    def batch(self, rows: Sequence[Row]) -> common.ActivationBatch:
        batch = super().batch(rows)
        several = len({subject.history_index for _, subject in rows}) > 1
        if several and not rows[0][1].item_id:
            batch.subjects.reverse()
        return batch


class PositionsFromZero(SmallExporter):
    found_by = "activations.order"

    def subject(self, user: str, item: str, interest: int, position: int, index: int) -> common.RowSubject:
        return super().subject(user, item, interest, position - 1, index)


class InterestsUnnamed(Interests):
    found_by = "activations.order"

    def subject(self, user: str, item: str, interest: int, position: int, index: int) -> common.RowSubject:
        return super().subject(user, item, 0, position, index)


class MixedVersions(SmallExporter):
    found_by = "activations.named"

    def batch(self, rows: Sequence[Row]) -> common.ActivationBatch:
        batch = super().batch(rows)
        batch.model_version = "fedcba9876543210"
        return batch


class Dropout(SmallExporter):
    found_by = "activations.repeatable"

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)

    def export(self, request: pb.ExportActivationsRequest) -> pb.ExportActivationsResponse:
        answer = super().export(request)
        rows = np.frombuffer(answer.batch.activations.data, "<f4").reshape(-1, DIM)
        noisy = rows + self.random.normal(size=rows.shape, scale=0.01).astype(np.float32)
        answer.batch.activations.CopyFrom(to_tensor(noisy.astype(np.float32)))
        return answer


class BatchDependent(SmallExporter):
    """Normalises over the batch, as a batch norm left in training mode does."""

    found_by = "activations.alone"

    def batch(self, rows: Sequence[Row]) -> common.ActivationBatch:
        batch = super().batch(rows)
        found = np.frombuffer(batch.activations.data, "<f4").reshape(-1, DIM)
        batch.activations.CopyFrom(to_tensor(found - found.mean(axis=0) / np.float32(2)))
        return batch


class RowsInAnotherOrder(SmallExporter):
    """The rows of a batch are reversed, their subjects are not."""

    found_by = "activations.alone"

    def batch(self, rows: Sequence[Row]) -> common.ActivationBatch:
        reversed_ = [row for row, _ in reversed(rows)]
        return super().batch(list(zip(reversed_, [subject for _, subject in rows], strict=True)))


class EmbedsOtherwise(SmallExporter):
    found_by = "activations.embed"

    def embed(self, request: pb.EmbedRequest) -> pb.EmbedResponse:
        answer = super().embed(request)
        rows = np.frombuffer(answer.batch.activations.data, "<f4").reshape(-1, DIM)
        answer.batch.activations.CopyFrom(to_tensor(rows * np.float32(1.01)))
        return answer


class ReadsTheOldest(SmallExporter):
    found_by = "activations.newest"

    def rows_of(self, subject: pb.Subject, index: int, positions: int, candidates: Sequence[str]) -> Iterator[Row]:
        history = self.known(subject.history.item_ids)
        if len(history) > 10:
            oldest = pb.Subject(history=common.History(item_ids=history[:10]))
            for row, named in super().rows_of(oldest, index, positions, candidates):
                yield row, self.subject("", "", 0, named.position + len(history) - 10, index)
            return
        yield from super().rows_of(subject, index, positions, candidates)


class UnknownItemsAsZeros(SmallExporter):
    found_by = "activations.unknown-items"

    def known(self, history: Sequence[str]) -> list[str]:
        return [item if item in PLACE else ITEMS[0] for item in history]


class EmptyHistoryCrashes(SmallExporter):
    found_by = "activations.empty"

    def rows_of(self, subject: pb.Subject, index: int, positions: int, candidates: Sequence[str]) -> Iterator[Row]:
        if not subject.history.item_ids:
            raise RecsaeError("index out of range")
        yield from super().rows_of(subject, index, positions, candidates)


class AnyHook(SmallExporter):
    found_by = "activations.unknown-hook"

    def export(self, request: pb.ExportActivationsRequest) -> pb.ExportActivationsResponse:
        request.hook = ""
        return super().export(request)


class LastPositionAlone(SmallExporter):
    """Says it has every position and sends the last."""

    found_by = "positions.order"

    def rows_of(self, subject: pb.Subject, index: int, positions: int, candidates: Sequence[str]) -> Iterator[Row]:
        yield from super().rows_of(subject, index, pb.POSITIONS_LAST, candidates)


class PositionsShifted(SmallExporter):
    """Position t holds what the model had before it read item t."""

    found_by = "positions.last"

    def rows_of(self, subject: pb.Subject, index: int, positions: int, candidates: Sequence[str]) -> Iterator[Row]:
        rows = list(super().rows_of(subject, index, positions, candidates))
        if positions == pb.POSITIONS_ALL:
            before = [np.zeros(DIM, np.float32), *(row for row, _ in rows)]
            rows = [(row, named) for row, (_, named) in zip(before, rows, strict=False)]
        yield from rows


class LooksAhead(SmallExporter):
    """A mask forgotten: earlier positions read later items."""

    found_by = "positions.prefix"

    def rows_of(self, subject: pb.Subject, index: int, positions: int, candidates: Sequence[str]) -> Iterator[Row]:
        rows = list(super().rows_of(subject, index, positions, candidates))
        for row, _ in rows[:-1]:
            row += rows[-1][0] / np.float32(4)
        yield from rows


class SubjectsRefused(SmallExporter):
    found_by = "subjects.stranger"

    def export(self, request: pb.ExportActivationsRequest) -> pb.ExportActivationsResponse:
        if any(subject.user_id for subject in request.subjects.subjects):
            raise InvalidRequestError("the user is unknown here; send a user of the training data")
        return super().export(request)


class ReadsEveryAttribute(SmallExporter):
    found_by = "subjects.ignored"

    def activation(self, history: Sequence[str], subject: pb.Subject) -> Floats:
        return super().activation(history, subject) + np.float32(len(subject.attributes))


class UnknownCountryIsNan(Attributes):
    found_by = "subjects.attributes"

    def activation(self, history: Sequence[str], subject: pb.Subject) -> Floats:
        found = super().activation(history, subject)
        return found + np.float32(np.nan) if "country" in subject.attributes else found


class CandidatesSorted(Pairs):
    found_by = "subjects.candidates"

    def rows_of(self, subject: pb.Subject, index: int, positions: int, candidates: Sequence[str]) -> Iterator[Row]:
        in_order = candidates if len(candidates) < 5 else candidates[::-1]
        yield from super().rows_of(subject, index, positions, in_order)


class CursorRepeats(SmallExporter):
    """The last item of a page is the first of the next."""

    found_by = "pages.items"

    def export(self, request: pb.ExportActivationsRequest) -> pb.ExportActivationsResponse:
        if request.items.limit in range(1, 65_537):
            request.items.limit = min(request.items.limit, 8)
        answer = super().export(request)
        if request.HasField("items") and answer.next_cursor:
            answer.next_cursor = str(int(answer.next_cursor) - 1)
        return answer


class CursorTurnsRound(SmallExporter):
    """After the last page comes the first."""

    found_by = "pages.items"

    def export(self, request: pb.ExportActivationsRequest) -> pb.ExportActivationsResponse:
        answer = super().export(request)
        if request.HasField("items"):
            answer.next_cursor = answer.next_cursor or "0"
        return answer


class CursorForgets(SmallExporter):
    """Pages are of the server's own order, which a second reading changes."""

    found_by = "pages.resumable"

    def __init__(self) -> None:
        self.readings = itertools.count()

    def item_rows(self, start: int, end: int) -> list[Row]:
        rows = super().item_rows(start, end)
        return rows[:: -1 if start and next(self.readings) % 2 else 1]


class LimitIgnored(SmallExporter):
    found_by = "pages.limit"

    def span(self, cursor: str, limit: int, total: int, default: int, most: int) -> tuple[int, int, str]:
        return super().span(cursor, max(limit, 12), total, default, most)


class UsersTwice(SmallExporter):
    found_by = "pages.users"

    def user(self, place: int) -> pb.Subject:
        return super().user(place // 2)


class ItemsMissing(SmallExporter):
    found_by = "items.listed"

    def export_items(self, request: pb.ExportItemsRequest) -> pb.ExportItemsResponse:
        answer = super().export_items(request)
        del answer.item_ids[-1]
        return answer


class NoVectors(SmallExporter):
    found_by = "items.vectors"

    def export_items(self, request: pb.ExportItemsRequest) -> pb.ExportItemsResponse:
        answer = super().export_items(request)
        answer.ClearField("vectors")
        return answer


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


BROKEN: Sequence[type[SmallExporter]] = [
    found for found in list(globals().values()) if isinstance(found, type) and "found_by" in vars(found)
]
