"""Small exporters of other kinds that keep the contract: interests, pairs, attributes, users alone, two hooks, a cut
with more than the activation crossing it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from tests.integration.conformance.small_exporter import (
    DIM,
    ITEMS,
    MAX_HISTORY,
    PLACE,
    USERS,
    VECTORS,
    Floats,
    Row,
    SmallExporter,
)

from recsae.errors import InvalidRequestError
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.v1 import common_pb2 as common
from recsae.v1 import recommender_pb2 as pb


class Interests(SmallExporter):
    """Two interests per subject: what was consumed lately, and all of it."""

    rows, decays, head = pb.ROW_KIND_INTEREST, (0.8, 0.3), pb.HEAD_KIND_OPAQUE


class Pairs(SmallExporter):
    """A row per subject and candidate; the score is the row's sum."""

    rows, head = pb.ROW_KIND_PAIR, pb.HEAD_KIND_OPAQUE

    def rows_of(self, subject: pb.Subject, index: int, positions: int, candidates: Sequence[str]) -> Iterator[Row]:
        history = self.known(subject.history.item_ids)
        if not history:
            raise InvalidRequestError(f"history {index} has no item of this model; leave it out")
        if candidates:
            for item in candidates:
                if item not in PLACE:
                    raise InvalidRequestError(f"candidate {item!r} is unknown; leave it out")
                pair = self.pair(history, item, subject)
                yield pair, self.subject(subject.user_id, item, 0, len(history), index)
            return
        first = max(1, len(history) - MAX_HISTORY + 1) if positions == pb.POSITIONS_ALL else len(history)
        for position in range(first, len(history) + 1):
            pair = self.pair(history[: position - 1], history[position - 1], subject)
            yield pair, self.subject(subject.user_id, history[position - 1], 0, position, index)

    def pair(self, history: Sequence[str], item: str, subject: pb.Subject) -> Floats:
        found: Floats = (self.activation(history, subject)[0] + np.float32(1)) * VECTORS[PLACE[item]]
        return found

    def scores(self, rows: Floats) -> Floats:
        found: Floats = rows.sum(axis=1)
        return found


class Attributes(SmallExporter):
    """Reads the country."""

    attributes = ("country",)

    def activation(self, history: Sequence[str], subject: pb.Subject) -> Floats:
        country = subject.attributes["country"].text if "country" in subject.attributes else ""
        return super().activation(history, subject) + np.float32({"DK": 0.5, "SE": -0.5}.get(country, 0.0))


class UsersAlone(SmallExporter):
    """Knows users by their id: matrix factorisation. Its items are points of the users' space."""

    ignores_history = reads_user_id = True
    all_positions = False

    def rows_of(self, subject: pb.Subject, index: int, positions: int, candidates: Sequence[str]) -> Iterator[Row]:
        yield self.activation((), subject)[0], self.subject(subject.user_id, "", 0, 0, index)

    def activation(self, history: Sequence[str], subject: pb.Subject) -> Floats:
        place = USERS.index(subject.user_id) if subject.user_id in USERS else 0
        found: Floats = np.sin(np.arange(DIM, dtype=np.float32) + np.float32(place))[None] + np.float32(0.1)
        return found

    def item_rows(self, start: int, end: int) -> list[Row]:
        return [(VECTORS[place], self.subject("", ITEMS[place], 0, 0, place - start)) for place in range(start, end)]

    def user(self, place: int) -> pb.Subject:
        return pb.Subject(user_id=USERS[place])


class TwoHooks(SmallExporter):
    """A second hook, twice as long, that is only read."""

    def info(self) -> pb.ModelInfo:
        info = super().info()
        info.hooks.add(name="wide", side=common.SIDE_USER, dim=2 * DIM, rows=self.rows)
        return info

    def export(self, request: pb.ExportActivationsRequest) -> pb.ExportActivationsResponse:
        wide = request.hook == "wide"
        request.hook = "" if wide else request.hook
        answer = super().export(request)
        if wide:
            rows = from_tensor(answer.batch.activations, name="rows", dtype=np.float32)
            answer.batch.activations.CopyFrom(to_tensor(np.hstack([rows, -rows])))
            answer.batch.hook = "wide"
        return answer


class Passthrough(SmallExporter):
    """The length of the history crosses the cut, and every score is multiplied by it."""

    head = pb.HEAD_KIND_OPAQUE

    def batch(self, rows: Sequence[Row]) -> common.ActivationBatch:
        batch = super().batch(rows)
        lengths = np.array([subject.position for _, subject in rows], np.int64)
        batch.passthrough.add(name="length", tensor=to_tensor(lengths))
        return batch

    def rank(self, request: pb.RankRequest) -> pb.RankResponse:
        rows = request.activations.shape[0]
        if len(request.passthrough) != 1:
            raise InvalidRequestError("the tensor 'length' did not come back; send the passthrough of the export")
        lengths = from_tensor(request.passthrough[0].tensor, name="length", dtype=np.int64, shape=(rows,))
        answer = super().rank(request)
        for length, ranked in zip(lengths, answer.lists, strict=True):
            for item in ranked.items:
                item.score *= float(length)
        return answer

    def recommend(self, request: pb.RecommendRequest) -> pb.RecommendResponse:
        answer = super().recommend(request)
        for item in answer.items:
            item.score *= float(len(self.known(request.history.item_ids)))
        return answer
