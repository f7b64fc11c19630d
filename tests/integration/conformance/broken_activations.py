"""Exporters with one defect each in their activations, positions and subjects, and the check that has to find it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from tests.integration.conformance.small_exporter import (
    DIM,
    ITEMS,
    MAX_HISTORY,
    PLACE,
    Floats,
    Row,
    SmallExporter,
)
from tests.integration.conformance.small_variants import Attributes, Interests, Pairs, TwoHooks

from recsae.errors import InvalidRequestError, RecsaeError
from recsae.rpc.tensors import to_tensor
from recsae.v1 import common_pb2 as common
from recsae.v1 import recommender_pb2 as pb


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


class AlwaysTheSame(SmallExporter):
    found_by = "activations.distinct"

    def activation(self, history: Sequence[str], subject: pb.Subject) -> Floats:
        return super().activation(ITEMS[:2], subject)


class SecondHookOfAnotherLength(TwoHooks):
    found_by = "activations.other-hooks"

    def info(self) -> pb.ModelInfo:
        info = super().info()
        info.hooks[1].dim += 1
        return info


class EveryPositionOfTheOldest(SmallExporter):
    """Of a long history every position comes of the oldest part, the last alone of the newest."""

    found_by = "positions.long"

    def rows_of(self, subject: pb.Subject, index: int, positions: int, candidates: Sequence[str]) -> Iterator[Row]:
        history = list(subject.history.item_ids)
        if positions == pb.POSITIONS_ALL and len(history) > MAX_HISTORY:
            subject = pb.Subject(history=common.History(item_ids=history[:MAX_HISTORY]))
        yield from super().rows_of(subject, index, positions, candidates)


class SubjectsReadFromTheEnd(SmallExporter):
    found_by = "subjects.same"

    def export(self, request: pb.ExportActivationsRequest) -> pb.ExportActivationsResponse:
        several = len(request.subjects.subjects) > 1
        if several and not any(subject.attributes for subject in request.subjects.subjects):
            for subject in request.subjects.subjects:
                subject.history.item_ids.reverse()
        return super().export(request)


BROKEN: list[type[SmallExporter]] = [
    found
    for found in list(globals().values())
    if isinstance(found, type) and issubclass(found, SmallExporter) and found.found_by
]
