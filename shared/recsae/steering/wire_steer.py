"""Requests and answers of `Steer` to and from arrays: split so that none is larger than the contract allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recsae.errors import InvalidRequestError
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.steering.matching import SteerContext
from recsae.steering.plans import Floats
from recsae.steering.receipts import Receipt
from recsae.steering.wire import attribute_message
from recsae.steering.wire_plans import receipt_from
from recsae.v1 import common_pb2, steering_pb2

MOST_ROWS = 4_096
"""Rows of one call."""
_MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class SteeredModel:
    """Whose activations are sent: name, version and hook."""

    name: str
    version: str
    hook: str


def steer_requests(
    x: Floats, contexts: Sequence[SteerContext], model: SteeredModel
) -> Iterator[steering_pb2.SteerRequest]:
    """Requests for rows `x` float32 [n, d] with a context each, in their order."""
    rows = max(1, min(MOST_ROWS, _MOST_BYTES // max(1, 4 * x.shape[1])))
    for begin in range(0, len(x), rows):
        part = slice(begin, begin + rows)
        yield steering_pb2.SteerRequest(
            batch=common_pb2.ActivationBatch(
                activations=to_tensor(x[part]), model=model.name, model_version=model.version, hook=model.hook
            ),
            contexts=[_context_message(context) for context in contexts[part]],
        )


def steer_answer(response: steering_pb2.SteerResponse, shape: tuple[int, int]) -> tuple[Floats, list[Receipt]]:
    """The rows float32 [n, d] and receipts of an answer; InvalidRequestError when they are not of that shape."""
    rows = from_tensor(response.activations, name="steered activations", dtype=np.float32, shape=shape)
    if len(response.receipts) != shape[0]:
        raise InvalidRequestError(f"{len(response.receipts)} receipts came for {shape[0]} rows; one is due for each")
    return rows, [receipt_from(receipt) for receipt in response.receipts]


def _context_message(context: SteerContext) -> steering_pb2.SteerContext:
    return steering_pb2.SteerContext(
        user_id=context.user_id,
        request_id=context.request_id,
        attributes={name: attribute_message(value) for name, value in context.attributes.items()},
    )
