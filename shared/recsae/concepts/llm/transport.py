"""Sends one request over HTTP and says what came of it. The only module that knows the HTTP client.

Not here: trying again, paying and caching (`client`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from recsae.concepts.llm.options import LlmOptions
from recsae.errors import FailedPreconditionError

# An answer of a few hundred tokens is a few kilobytes; more is not an answer.
_MAX_BODY = 4 << 20


@dataclass(frozen=True)
class Outcome:
    """A response, or (status 0) why there is none. `retry_after` is that header, "" without one.

    `sent` is False when the connection failed before the server could have begun to work.
    """

    status: int
    body: bytes = b""
    retry_after: str = ""
    problem: str = ""
    sent: bool = True


class Transport(Protocol):
    """Sends requests."""

    async def post(self, body: dict[str, Any]) -> Outcome:
        """Sends one and waits until its deadline; never raises for what the server or the network do."""
        ...


class HttpTransport:
    """The endpoint of some options; an async context manager that holds the connections."""

    def __init__(self, options: LlmOptions) -> None:
        """FailedPreconditionError when the HTTP client is not installed."""
        try:
            import httpx
        except ImportError as error:
            raise FailedPreconditionError(
                "a language model is asked for and the HTTP client is not installed; "
                "install the worker with its extra: pip install 'recsae[worker,llm]'"
            ) from error
        self._errors, self._refused = (httpx.HTTPError, httpx.InvalidURL), (httpx.ConnectError, httpx.ConnectTimeout)
        self._url = f"{options.url.rstrip('/')}/chat/completions"
        self._timeout_s = options.timeout_s
        headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
        limits = httpx.Limits(max_connections=options.concurrency, max_keepalive_connections=options.concurrency)
        # Its own time-outs bound single reads, and a server that dribbles outlives them: the deadline is around all.
        # Redirects are not followed: they would carry titles, and on the same host the key, where nobody asked for.
        self._client = httpx.AsyncClient(headers=headers, limits=limits, timeout=None, follow_redirects=False)

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def post(self, body: dict[str, Any]) -> Outcome:
        """See `Transport`."""
        try:
            async with asyncio.timeout(self._timeout_s), self._client.stream("POST", self._url, json=body) as response:
                content = b""
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > _MAX_BODY:
                        return Outcome(0, problem=f"the answer is longer than {_MAX_BODY >> 20} MiB")
                return Outcome(response.status_code, content, response.headers.get("Retry-After", ""))
        except TimeoutError:
            return Outcome(0, problem=f"no answer within {self._timeout_s:g} s")
        except self._errors as error:
            sent = not isinstance(error, self._refused)
            return Outcome(0, problem=f"{type(error).__name__}: {error}".rstrip(": "), sent=sent)
