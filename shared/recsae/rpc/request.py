"""What a service knows about the call it is serving: request id, trace, principal, deadline.

Kept in a context variable, so that handlers, logs and outgoing calls see it without passing it along.
"""

from __future__ import annotations

import contextvars
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from recsae.rpc.deadline import Deadline
from recsae.rpc.roles import Role

REQUEST_ID_KEY = "x-request-id"
TRACEPARENT_KEY = "traceparent"
AUTHORIZATION_KEY = "authorization"
ANONYMOUS = "anonymous"

# Both end up in logs and headers: bounded, and no character that could forge a log line.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True)
class RequestInfo:
    """The call being served."""

    request_id: str
    traceparent: str | None = None
    principal: str = ANONYMOUS
    role: Role = Role.ADMIN
    method: str = ""
    deadline: Deadline = field(default_factory=Deadline)


_current: contextvars.ContextVar[RequestInfo | None] = contextvars.ContextVar("recsae_request", default=None)


def current_request() -> RequestInfo | None:
    """The call this thread is serving; None outside of one."""
    return _current.get()


def require_request() -> RequestInfo:
    """The call this thread is serving, or a fresh one when there is none (scripts, tests)."""
    return _current.get() or RequestInfo(new_request_id())


def enter_request(info: RequestInfo) -> contextvars.Token[RequestInfo | None]:
    """Makes `info` the current request of this context; give the token to `leave_request`."""
    return _current.set(info)


def leave_request(token: contextvars.Token[RequestInfo | None]) -> None:
    """Undoes `enter_request`."""
    _current.reset(token)


def new_request_id() -> str:
    """A random id, 32 hex digits."""
    return os.urandom(16).hex()


def request_id_of(metadata: Mapping[str, str]) -> str:
    """The caller's request id when it is well formed, else a new one."""
    given = metadata.get(REQUEST_ID_KEY, "")
    return given if _REQUEST_ID.fullmatch(given) else new_request_id()


def traceparent_of(metadata: Mapping[str, str]) -> str | None:
    """The caller's W3C trace parent when it is well formed."""
    given = metadata.get(TRACEPARENT_KEY, "")
    return given if _TRACEPARENT.fullmatch(given) else None
