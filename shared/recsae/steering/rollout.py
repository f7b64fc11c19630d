"""Sticky rollout: whether a user (or, without one, a request) is in the share a policy is rolled out to."""

from __future__ import annotations

import hashlib
from functools import lru_cache

_BYTES = 8
_STEPS = 1 << (8 * _BYTES)
_SPAN = float(_STEPS)


def rollout_position(salt: str, key: str) -> float:
    """Where `key` stands in the rollout of a policy with that salt, in [0, 1): the same everywhere, always."""
    digest = hashlib.sha256(salted(salt) + key.encode()).digest()
    return _position(int.from_bytes(digest[:_BYTES], "big"))


def in_rollout(percent: float, salt: str, user_id: str, request_id: str) -> bool:
    """True for `percent` (0 to 100) of users; who is in at 10 is in at 20. Without any key only 100 holds."""
    if percent >= 100:
        return True
    key = user_id or request_id
    return bool(key) and rollout_position(salt, key) * 100 < percent


def salted(salt: str) -> bytes:
    """What precedes a key where its SHA-256 is taken."""
    return f"{salt}\0".encode()


@lru_cache(maxsize=4_096)
def rollout_limit(percent: float) -> bytes:
    """Whoever's SHA-256 sorts before these bytes is in: `in_rollout` for one comparison of bytes, to the last digit."""
    # The smallest step that is out: positions rise with steps, so halving finds it.
    inside, outside = -1, _STEPS
    while outside - inside > 1:
        middle = (inside + outside) // 2
        if _position(middle) * 100 < percent:
            inside = middle
        else:
            outside = middle
    # A digest is longer than the limit, so one that begins with it sorts after it, hence is out, as it has to be.
    return outside.to_bytes(_BYTES, "big") if outside < _STEPS else b"\xff" * (hashlib.sha256().digest_size + 1)


def _position(step: int) -> float:
    return step / _SPAN
