"""Which server answers for which model: one address for most, others for models that are served elsewhere.

A route is written `host:port`, or `host:port,name=host:port,...` where some models have a server of their own. The
channel made of it looks at the model a request names, so that clients need not know. Not here: retries, credentials
and deadlines (`recsae.rpc.client`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc

from recsae.errors import InvalidRequestError
from recsae.rpc.client import ClientOptions, channel


@dataclass(frozen=True)
class Routes:
    """`default` serves every model that `of_model` does not name; "" = none does."""

    default: str
    of_model: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Routes:
        """Routes as settings write them; InvalidRequestError names the part that is none."""
        default, of_model = "", {}
        for part in (part.strip() for part in text.split(",") if part.strip()):
            model, equals, address = part.rpartition("=")
            if not address or (equals and not model) or model in of_model:
                raise InvalidRequestError(f"route {part!r} is not host:port or model=host:port, or names a model again")
            if equals:
                of_model[model] = address
            elif default:
                raise InvalidRequestError(f"routes {text!r} have two addresses for all models; write model={address}")
            else:
                default = address
        if not default and not of_model:
            raise InvalidRequestError("no address of a recommender is named; write host:port")
        return cls(default, of_model)

    def __str__(self) -> str:
        """As settings write them."""
        own = (f"{model}={address}" for model, address in sorted(self.of_model.items()))
        return ",".join([*([self.default] if self.default else []), *own])

    def address(self, model: str) -> str:
        """Where a model is served; InvalidRequestError when nowhere."""
        found = self.of_model.get(model, self.default)
        if not found:
            wanted = f"model {model!r}" if model else "a request that names no model"
            raise InvalidRequestError(f"no server is known for {wanted}, only for {', '.join(self.of_model)}")
        return found


def routed_channel(routes: Routes, options: ClientOptions | None = None) -> grpc.Channel:
    """A channel to all servers of some routes: a call goes where the `model` of its request is served."""
    if not routes.of_model:
        return channel(routes.default, options)
    addresses = dict.fromkeys([*([routes.default] if routes.default else []), *routes.of_model.values()])
    return _RoutedChannel(routes, {address: channel(address, options) for address in addresses})


class _RoutedChannel(grpc.Channel):
    """Unary calls only: what recommenders are asked is never a stream."""

    def __init__(self, routes: Routes, channels: Mapping[str, grpc.Channel]) -> None:
        self._routes, self._channels = routes, channels

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        calls = {address: one.unary_unary(method, *args, **kwargs) for address, one in self._channels.items()}
        return _RoutedCall(self._routes, calls)

    def _no_stream(self, method: str, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise InvalidRequestError(f"{method} streams; open a channel to one server for it")

    unary_stream = stream_unary = stream_stream = _no_stream

    def subscribe(self, callback: Callable[[Any], None], try_to_connect: bool | None = False) -> None:
        for one in self._channels.values():
            one.subscribe(callback, bool(try_to_connect))

    def unsubscribe(self, callback: Callable[[Any], None]) -> None:
        for one in self._channels.values():
            one.unsubscribe(callback)

    def close(self) -> None:
        for one in self._channels.values():
            one.close()

    def __enter__(self) -> _RoutedChannel:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class _RoutedCall:
    """A unary call that looks at its request."""

    def __init__(self, routes: Routes, calls: Mapping[str, Any]) -> None:
        self._routes, self._calls = routes, calls

    def __call__(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        return self._of(request)(request, *args, **kwargs)

    def with_call(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        return self._of(request).with_call(request, *args, **kwargs)

    def future(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        return self._of(request).future(request, *args, **kwargs)

    def _of(self, request: Any) -> Any:
        return self._calls[self._routes.address(request.model)]
