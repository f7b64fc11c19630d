"""Sticky rollout: whether a user (or, without one, a request) is in the share a policy is rolled out to."""

from __future__ import annotations

import hashlib

_BYTES = 8
_SPAN = float(1 << (8 * _BYTES))


def rollout_position(salt: str, key: str) -> float:
    """Where `key` stands in the rollout of a policy with that salt, in [0, 1): the same everywhere, always."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    return int.from_bytes(digest[:_BYTES], "big") / _SPAN


def in_rollout(percent: float, salt: str, user_id: str, request_id: str) -> bool:
    """True for `percent` (0 to 100) of users; who is in at 10 is in at 20. Without any key only 100 holds."""
    if percent >= 100:
        return True
    key = user_id or request_id
    return bool(key) and rollout_position(salt, key) * 100 < percent
