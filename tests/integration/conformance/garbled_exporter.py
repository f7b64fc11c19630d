"""An exporter whose answers are garbled at random: one field of an answer, now and then, holds something else."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message
from tests.integration.conformance.small_exporter import SmallExporter

_SHARES = (0.02, 0.2, 1.0)


class Garbled(SmallExporter):
    """Mix it in before an honest exporter."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.share = self.random.choice(_SHARES)

    def answered(self, function: Callable[[Any], Any], request: Any, context: grpc.ServicerContext) -> Any:
        answer = super().answered(function, request, context)
        if self.random.random() < self.share:
            garble(answer, self.random)
        return answer


def garble(message: Message, chance: random.Random) -> None:
    """Changes one field of a message, or of a message inside it."""
    fields = [field.name for field, _ in message.ListFields()]
    if not fields:
        return
    name = chance.choice(fields)
    value: Any = getattr(message, name)
    inner = [value] if isinstance(value, Message) else messages_in(value)
    if inner and chance.random() < 0.8:
        garble(chance.choice(inner), chance)
        return
    match value:
        case bool():
            setattr(message, name, not value)
        case int():
            setattr(message, name, chance.choice([0, 1, 2, 7, value + 1]))
        case float():
            setattr(message, name, chance.choice([float("nan"), 1e30, -value, 0.0]))
        case str():
            setattr(message, name, chance.choice(["", "x", value + "1"]))
        case bytes():
            setattr(message, name, value[: chance.randrange(len(value) + 1)])
        case _:
            message.ClearField(name)


def messages_in(value: Any) -> list[Message]:
    """Messages of a repeated field; none of anything else."""
    if isinstance(value, bool | int | float | str | bytes) or hasattr(value, "keys"):
        return []
    return [one for one in value if isinstance(one, Message)]
