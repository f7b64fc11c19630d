"""Leases in Redis: `SET NX PX` with the owner as value; renew and release compare the owner in one script."""

from __future__ import annotations

from typing import Any

import redis

_PREFIX = "recsae:lease:"

_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""


class RedisLeaseStore:
    """A `LeaseStore` on the `state` server."""

    def __init__(self, client: redis.Redis) -> None:
        """`client` may decode responses or not."""
        self._client: Any = client
        self._renew = client.register_script(_RENEW)
        self._release = client.register_script(_RELEASE)

    def acquire(self, name: str, owner: str, ttl_s: float) -> bool:
        """See `LeaseStore`."""
        return bool(self._client.set(_PREFIX + name, owner, nx=True, px=int(ttl_s * 1000)))

    def renew(self, name: str, owner: str, ttl_s: float) -> bool:
        """See `LeaseStore`."""
        return bool(self._renew(keys=[_PREFIX + name], args=[owner, int(ttl_s * 1000)]))

    def release(self, name: str, owner: str) -> None:
        """See `LeaseStore`."""
        self._release(keys=[_PREFIX + name], args=[owner])

    def holder(self, name: str) -> str:
        """See `LeaseStore`."""
        owner: str | bytes | None = self._client.get(_PREFIX + name)
        return owner.decode() if isinstance(owner, bytes) else owner or ""
