"""Exporters with one defect each in what they say of themselves, in items or pages, and the check that finds it."""

from __future__ import annotations

import itertools

from tests.integration.conformance.small_exporter import (
    Row,
    SmallExporter,
)

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


class SegmentIgnored(SmallExporter):
    found_by = "pages.segment"

    def check_segment(self, users: pb.UserPage) -> None:
        pass


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


class NoVersion(SmallExporter):
    found_by = "model.answers"
    version = ""


class RowsOfNoKind(SmallExporter):
    found_by = "model.hooks"

    def info(self) -> pb.ModelInfo:
        info = super().info()
        info.hooks[0].rows = 9  # type: ignore[assignment]
        return info


class VersionOfWords(SmallExporter):
    found_by = "model.version"
    version = "release-7"


BROKEN: list[type[SmallExporter]] = [
    found
    for found in list(globals().values())
    if isinstance(found, type) and issubclass(found, SmallExporter) and found.found_by
]
