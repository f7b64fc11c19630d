"""Connections to the `state` server, with every timeout named, and its failures as errors of ours.

Nothing is retried here: a write whose answer was lost may have happened, and only its author knows what repeating it
does. Not here: keys and scripts (each store has its own).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from recsae.errors import UnavailableError
from recsae.store.urls import readable_url

CONNECT_TIMEOUT_S = 2.0
SOCKET_TIMEOUT_S = 5.0
# redis-py gives up on a blocking read after the socket's timeout, silently: it must be longer than the block.
_BLOCK_MARGIN_S = 3.0


def connect(
    url: str, *, decode: bool = True, timeout_s: float = SOCKET_TIMEOUT_S, longest_block_s: float = 0.0
) -> redis.Redis:
    """A client of the server at `url`; connects on first use.

    `decode` gives text instead of bytes. `longest_block_s` is the longest a blocking command may wait.
    InvalidRequestError for a URL that cannot be read.
    """
    return redis.Redis.from_url(
        readable_url(url),
        decode_responses=decode,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=max(timeout_s, longest_block_s + _BLOCK_MARGIN_S),
        retry=Retry(NoBackoff(), 0),
        health_check_interval=30,
    )


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turns a lost or silent server into UnavailableError naming what was being done; a full one likewise."""
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise UnavailableError(
            f"the state server refused our user name or password while {doing}; check them in its URL"
        ) from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise UnavailableError(
            f"the state server did not answer while {doing}, which may or may not have happened; "
            "look whether it did, then try again"
        ) from error
    except redis.OutOfMemoryError as error:
        raise UnavailableError(f"the state server is full, so {doing} did not happen; give it more memory") from error
    except redis.ReadOnlyError as error:
        raise UnavailableError(
            f"the state server is a replica, so {doing} did not happen; connect to the primary"
        ) from error


def durability_warning(client: redis.Redis, replicas: int | None = None) -> str:
    """Why acknowledged writes could be lost by a crash or a failover, in a sentence; "" when none can.

    `replicas` as in `AcknowledgedWrites`. A server that does not show its configuration (managed ones) gets the
    sentence that says so.
    """
    server: Any = client
    try:
        shown: Any = server.config_get("append*")
    except redis.ResponseError:
        return "the state server does not show its configuration: check that it runs appendonly with fsync always"
    settings = {_text(name): _text(value) for name, value in shown.items()}
    if settings.get("appendonly") != "yes":
        return "the state server runs without appendonly: a crash loses policies; set `appendonly yes`"
    if settings.get("appendfsync") != "always":
        return (
            f"the state server runs appendfsync {settings.get('appendfsync')}: a crash may lose the last second of "
            "acknowledged policies; set `appendfsync always`"
        )
    return _failover_warning(server, replicas)


def replicas_online(client: Any) -> int:
    """Replicas of this server that follow it now; not those that still fetch their first copy."""
    facts = client.info("replication").items()
    return sum(
        name.startswith("slave") and isinstance(fact, dict) and fact.get("state") == "online" for name, fact in facts
    )


def _failover_warning(server: Any, replicas: int | None) -> str:
    connected = replicas_online(server)
    if replicas and connected < replicas:
        return (
            f"{connected} of the {replicas} replicas that must have a write are connected: no write is acknowledged "
            "until they are; connect them or lower state_replicas"
        )
    if replicas == 0 and connected:
        return (
            f"{connected} replicas are connected and writes wait for none (state_replicas is 0): a failover may lose "
            "what was acknowledged just before; set state_replicas to 1"
        )
    try:
        if connected:
            server.execute_command("WAITAOF", 0, 0, 1)
    except redis.ResponseError:
        return (
            "the state server has no WAITAOF: writes wait until a replica received them, and a failover to one that "
            "lost power meanwhile may lose them; run Redis 7.2, Valkey 7.2 or newer"
        )
    return ""


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
