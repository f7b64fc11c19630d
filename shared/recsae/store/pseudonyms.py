"""Keyed pseudonyms: how user ids appear in artifacts."""

from __future__ import annotations

import hashlib
import hmac

from recsae.errors import InvalidRequestError

_DIGITS = 16


def pseudonym(key: bytes, user_id: str) -> str:
    """HMAC-SHA256 of a user id, 16 hex digits: the same id under the same key, and no way back without the key.

    InvalidRequestError for an empty key, which would protect nobody.
    """
    if not key:
        raise InvalidRequestError("the pseudonym key is empty; make one, e.g. with `secrets.token_bytes(32)`")
    return hmac.new(key, user_id.encode(), hashlib.sha256).hexdigest()[:_DIGITS]
