"""When a write counts as acknowledged: once it is on this server's disk and on that of enough of its replicas.

`WAITAOF` (Redis 7.2, Valkey) waits for the appendonly files of both; a server without it can only say that replicas
received the write (`WAIT`). Either waits for what was written on the same connection, so write and wait share one.
A replica that never acknowledged can still be chosen in a failover: with several, let the one furthest ahead win (as
Sentinel does) or wait for all but one. Not here: what is written, and whether the server is set up to be durable
(`recsae.store.redis.durability_warning`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import redis

from recsae.errors import UnavailableError
from recsae.store.redis import replicas_online, translated

# Shorter than the socket's timeout, so that the server's answer and not a lost connection tells what is missing.
ACKNOWLEDGE_TIMEOUT_S = 2.0
T = TypeVar("T")


class AcknowledgedWrites:
    """Writes to the `state` server that return once they are durable. Threads may share it."""

    def __init__(
        self, client: redis.Redis, replicas: int | None = None, *, timeout_s: float = ACKNOWLEDGE_TIMEOUT_S
    ) -> None:
        """`replicas` that must have it on disk; None = one where one is connected; 0 = nothing is waited for."""
        self._client: Any = client
        self._replicas = replicas
        self._timeout_ms = int(timeout_s * 1000)

    def run(self, write: Callable[[Any], T], doing: str) -> T:
        """What `write` returned for the client it was given, once that is durable.

        UnavailableError when it cannot be known to be: it may have happened, and may be lost in a failover.
        """
        if self._replicas == 0:
            with translated(doing):
                return write(self._client)
        with translated(doing), self._client.client() as one:
            answer = write(one)
            self._wait(one, doing)
            return answer

    def _wait(self, one: Any, doing: str) -> None:
        wanted = self._replicas
        if wanted is None:
            wanted = min(1, replicas_online(one))
        try:
            on_disk, reached = self._wait_for_files(one, wanted)
        except redis.ResponseError as error:
            raise UnavailableError(
                f"{doing} happened, but the server refused to say whether it is durable ({error}); let this user run "
                "WAITAOF, or set state_replicas to 0 and take the risk"
            ) from error
        if not on_disk or reached < wanted:
            place = f"{reached} of {wanted} replicas have it" if on_disk else "it is not on the server's disk"
            raise UnavailableError(
                f"{doing} may have happened, but {place} after {self._timeout_ms / 1000:g} s, so a failover could lose "
                "it; look at the replicas and whether it happened, then try again"
            )

    def _wait_for_files(self, one: Any, wanted: int) -> tuple[bool, int]:
        """Whether it is on this server's disk (or that is not asked of it), and how many replicas have it."""
        try:
            local, reached = one.execute_command("WAITAOF", 1, wanted, self._timeout_ms)
            return local >= 1, int(reached)
        except redis.ResponseError as error:
            if "unknown command" in str(error):
                return True, int(one.execute_command("WAIT", wanted, self._timeout_ms)) if wanted else 0
            if "appendonly is disabled" not in str(error):
                raise
        if not wanted:
            return True, 0
        _, reached = one.execute_command("WAITAOF", 0, wanted, self._timeout_ms)
        return True, int(reached)
