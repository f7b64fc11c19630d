"""How checks ask a service: one call with a deadline, answered by a message or refused with a status and a sentence.

The messages are the contract's own. Not here: the transport (`over_grpc`) and what is asked (`checks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from google.protobuf.message import Message

from recsae.v1 import recommender_pb2, steering_pb2

UNIMPLEMENTED = "UNIMPLEMENTED"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"


class RefusedError(Exception):
    """A call that brought no answer: the method, what was asked, the gRPC status by name and the server's sentence."""

    def __init__(self, method: str, asked: str, code: str, sentence: str) -> None:
        """`sentence` as the server sent it, maybe empty."""
        super().__init__(f"{asked}: {code} {sentence}")
        self.method, self.asked, self.code, self.sentence = method, asked, code, sentence


class Exporter(Protocol):
    """`recsae.v1.ActivationExporter`; every method raises `RefusedError` instead of answering."""

    def get_model(self, request: recommender_pb2.GetModelRequest) -> recommender_pb2.GetModelResponse:
        """Describes a model."""
        ...

    def embed(self, request: recommender_pb2.EmbedRequest) -> recommender_pb2.EmbedResponse:
        """One subject's activation."""
        ...

    def export(self, request: recommender_pb2.ExportActivationsRequest) -> recommender_pb2.ExportActivationsResponse:
        """A page of activations."""
        ...

    def export_items(self, request: recommender_pb2.ExportItemsRequest) -> recommender_pb2.ExportItemsResponse:
        """A page of items."""
        ...


class Ranker(Protocol):
    """`recsae.v1.Recommender`; every method raises `RefusedError` instead of answering."""

    def rank(self, request: recommender_pb2.RankRequest) -> recommender_pb2.RankResponse:
        """Lists from activations."""
        ...

    def recommend(self, request: recommender_pb2.RecommendRequest) -> recommender_pb2.RecommendResponse:
        """One list."""
        ...


class Service(Exporter, Ranker, Protocol):
    """The recommender under test and, when one was named, the interpreter beside it."""

    @property
    def has_interpreter(self) -> bool:
        """Whether `steer` has somebody to ask."""
        ...

    @property
    def timeout_s(self) -> float:
        """Deadline of every call in seconds."""
        ...

    @property
    def refusals(self) -> Sequence[RefusedError]:
        """Every refusal so far."""
        ...

    def health(self) -> str:
        """State of the gRPC health service, e.g. "SERVING"."""
        ...

    def steer(self, request: steering_pb2.SteerRequest) -> steering_pb2.SteerResponse:
        """`recsae.v1.Steering.Steer` of the interpreter."""
        ...

    def abandon(self, request: recommender_pb2.ExportActivationsRequest, calls: int, deadline_s: float) -> None:
        """Asks for the same export `calls` times at once and gives up on all of them after `deadline_s` seconds."""
        ...


def described(method: str, request: Message) -> str:
    """A request in a line, e.g. `Rank(model="tiny", activations [2, 16], k=3)`: long parts by their size."""
    parts = [_part(field.name, value) for field, value in request.ListFields()]
    return f"{method}({', '.join(parts)})"


def _part(name: str, value: object) -> str:
    if isinstance(value, Message):
        return _nested(name, value)
    if isinstance(value, str):
        return f'{name}="{value}"' if len(value) <= 24 else f'{name}="{value[:20]}…"'
    if isinstance(value, bool | int | float):
        return f"{name}={value}"
    try:
        return f"{len(value)} {name}"  # type: ignore[arg-type]
    except TypeError:
        return name


def _nested(name: str, value: Message) -> str:
    if hasattr(value, "element_type"):
        return f"{name} {list(value.shape)}"  # type: ignore[attr-defined]
    inner = ", ".join(_part(field.name, part) for field, part in value.ListFields())
    return f"{name}({inner})"
