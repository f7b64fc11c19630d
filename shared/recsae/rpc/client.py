"""Channels to other RecSAE services: retries, keepalive, sizes, TLS, tokens, deadlines and request ids.

Retries are on UNAVAILABLE and for methods without side effects only. Timeouts are per call, because a `timeout`
in a service config fails at once in grpcio 1.76 to 1.85 (grpc issues 34547 and 40633).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from recsae.errors import InvalidRequestError
from recsae.rpc.request import AUTHORIZATION_KEY, REQUEST_ID_KEY, TRACEPARENT_KEY, current_request, new_request_id

if TYPE_CHECKING:
    from grpc import _CallFuture, _CallIterator

Req = TypeVar("Req")
Res = TypeVar("Res")

# Every method that changes nothing, by service: what the service config may retry.
IDEMPOTENT: Mapping[str, tuple[str, ...]] = {
    "recsae.v1.Recommender": ("Recommend", "Rank"),
    "recsae.v1.ActivationExporter": ("GetModel", "Embed", "ExportActivations", "ExportItems"),
    "recsae.v1.Interpreter": (
        *("Explain", "Encode", "ListConcepts", "GetConcept", "SearchConcepts", "CompareGroups"),
        *("ListHandles", "ListLabelEdits", "GetLineage"),
    ),
    "recsae.v1.Steering": (
        *("GetPolicy", "ListPolicies", "ListPolicyRevisions", "ListKillSwitches", "ListAudit", "ResolvePolicies"),
        *("Preview", "PreviewPanel", "Steer", "GetEncoder"),
    ),
    "recsae.v1.Pipeline": ("GetRun", "ListRuns", "GetChannels"),
}
_RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.05s",
    "maxBackoff": "1s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


@dataclass(frozen=True)
class ClientOptions:
    """How to call a service. Files are PEM."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: str | None = field(default=None, repr=False)
    timeout_s: float = 10.0
    """For unary calls that name none."""
    stream_timeout_s: float = 7200.0
    """For streams that name none: longer than the life a server gives them."""
    max_message_bytes: int = 64 << 20
    retries: bool = True
    """False: a call that fails fails at once, for callers that have a better use for their time."""


def channel(address: str, options: ClientOptions | None = None) -> grpc.Channel:
    """A channel to `host:port`; close it when done. Connects on the first call and again after failures.

    InvalidRequestError when a token would travel unencrypted to another machine, or for a certificate that is none.
    """
    options = options or ClientOptions()
    if options.ca is None:
        if options.token is not None and not _is_local(address):
            raise InvalidRequestError(
                f"a token would travel to {address} in the clear; name the CA of its certificate, or take the token out"
            )
        raw = grpc.insecure_channel(address, _channel_arguments(options))
    else:
        raw = grpc.secure_channel(address, _credentials(options), _channel_arguments(options))
    return grpc.intercept_channel(raw, _Outgoing(options))


def check_address(address: str) -> None:
    """InvalidRequestError when `host:port` names no port: gRPC itself says so only at the first call."""
    host, _, port = address.rpartition(":")
    if not address.startswith("unix:") and not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise InvalidRequestError(f"{address!r} is no address; give host:port, e.g. 127.0.0.1:50052")


def service_config() -> str:
    """The gRPC service config: which methods are retried, and how."""
    names = [{"service": service, "method": method} for service, methods in IDEMPOTENT.items() for method in methods]
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [{"name": names, "retryPolicy": _RETRY}],
            # When most calls fail, retries only add load: stop them until successes return.
            "retryThrottling": {"maxTokens": 50, "tokenRatio": 0.2},
        }
    )


def _channel_arguments(options: ClientOptions) -> list[tuple[str, Any]]:
    return [
        ("grpc.enable_retries", int(options.retries)),
        ("grpc.service_config", service_config()),
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.max_send_message_length", options.max_message_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A restarted service is found again within a second or two; the default backs off to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]


def _credentials(options: ClientOptions) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(options.ca), private_key=_pem(options.key), certificate_chain=_pem(options.certificate)
    )


def _pem(path: Path | None) -> bytes | None:
    """The file's content. gRPC takes anything, and then fails each call with words about something else."""
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{path}: {error.strerror}; name a PEM file that can be read") from error
    if b"-----BEGIN " not in content:
        raise InvalidRequestError(f"{path} holds no PEM; name a file with a certificate or a key")
    return content


def _is_local(address: str) -> bool:
    host = address.rsplit(":", 1)[0].removeprefix("ipv4:").removeprefix("dns:///")
    return address.startswith("unix:") or host in {"localhost", "[::1]"} or host.startswith("127.")


class _Outgoing(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Gives every call a deadline, the request id and trace of the call being served, and the token."""

    def __init__(self, options: ClientOptions) -> None:
        self._options = options

    def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Req], _CallFuture[Res]],
        client_call_details: grpc.ClientCallDetails,
        request: Req,
    ) -> _CallFuture[Res]:
        return continuation(self._complete(client_call_details, self._options.timeout_s), request)

    def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Req], _CallIterator[Res]],
        client_call_details: grpc.ClientCallDetails,
        request: Req,
    ) -> _CallIterator[Res]:
        return continuation(self._complete(client_call_details, self._options.stream_timeout_s), request)

    def _complete(self, details: grpc.ClientCallDetails, timeout_s: float) -> grpc.ClientCallDetails:
        metadata = [(str(key), value) for key, value in details.metadata or ()]
        given = {key for key, _ in metadata}
        serving = current_request()
        if REQUEST_ID_KEY not in given:
            metadata.append((REQUEST_ID_KEY, serving.request_id if serving else new_request_id()))
        if TRACEPARENT_KEY not in given and serving is not None and serving.traceparent:
            metadata.append((TRACEPARENT_KEY, serving.traceparent))
        if AUTHORIZATION_KEY not in given and self._options.token is not None:
            metadata.append((AUTHORIZATION_KEY, f"Bearer {self._options.token}"))
        return _CallDetails(
            method=details.method,
            timeout=timeout_s if details.timeout is None else details.timeout,
            metadata=tuple(metadata),
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
            compression=details.compression,
        )


@dataclass(frozen=True)
class _CallDetails(grpc.ClientCallDetails):
    method: str
    timeout: float | None
    metadata: Any = field(repr=False)  # has the token
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None
