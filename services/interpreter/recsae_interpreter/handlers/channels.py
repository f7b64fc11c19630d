"""Use cases of channels: promote, roll back, look. A triple is loaded and verified before a channel points at it."""

from __future__ import annotations

from collections.abc import Callable

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.rpc.request import RequestInfo
from recsae.steering.policies import validate_reason
from recsae.store.channels import CANDIDATE, PRODUCTION, Channel, ChannelStore
from recsae.store.events import change_now


class ChannelsHandler:
    """Moves the channels of models."""

    def __init__(self, channels: ChannelStore, verify: Callable[[str, Triple], object]) -> None:
        """`verify` raises when a triple is not whole or its versions do not belong together."""
        self._channels = channels
        self._verify = verify

    def promote(
        self, model: str, triple: Triple, expected_revision: int | None, reason: str, info: RequestInfo
    ) -> Channel:
        """Points production at the triple (an empty one = the candidate), by one compare-and-set."""
        validate_reason(reason)
        _check_model(model)
        if triple == Triple():
            triple = self._channels.read(model).channel(CANDIDATE).triple
            if triple == Triple():
                raise FailedPreconditionError(f"model {model} has no candidate; run a refresh or name a triple")
        self._verify(model, triple)
        change = change_now(actor=info.principal, action="channel.promote", reason=reason, request_id=info.request_id)
        return self._channels.point(model, PRODUCTION, triple, change, expected_revision=expected_revision)

    def roll_back(self, model: str, reason: str, info: RequestInfo) -> Channel:
        """Points production at the triple before."""
        validate_reason(reason)
        _check_model(model)
        change = change_now(actor=info.principal, action="channel.rollback", reason=reason, request_id=info.request_id)
        return self._channels.roll_back(model, change)

    def channels(self, model: str) -> list[Channel]:
        """The channels of a model that point somewhere, candidate first."""
        _check_model(model)
        read = self._channels.read(model)
        return [read.channels[name] for name in (CANDIDATE, PRODUCTION) if name in read.channels]


def _check_model(model: str) -> None:
    if not model:
        raise InvalidRequestError("model is empty; name the model")
