"""Bearer tokens: from settings to the principal of a call. Roles and permissions are not decided here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from recsae.errors import UnauthenticatedError
from recsae.rpc.request import ANONYMOUS, AUTHORIZATION_KEY

_SCHEME = "bearer "


class Secret(Protocol):
    """A value that does not print itself, as pydantic's `SecretStr`."""

    def get_secret_value(self) -> str:
        """The value."""


class TokenAuthenticator:
    """Finds the principal that a call's `authorization` metadata proves."""

    def __init__(self, tokens: Sequence[Secret]) -> None:
        """Tokens are `name:secret` or a bare secret, whose principal is named by its hash. None = all may call."""
        # Looked up by digest: the time taken says nothing about how much of a guess was right.
        self._principals = dict(_principal(token.get_secret_value()) for token in tokens)

    def principal(self, metadata: Mapping[str, str]) -> str:
        """The principal; "anonymous" when no tokens are configured; UnauthenticatedError else."""
        if not self._principals:
            return ANONYMOUS
        given = metadata.get(AUTHORIZATION_KEY, "")
        if not given.lower().startswith(_SCHEME):
            raise UnauthenticatedError("no bearer token came; send metadata 'authorization: Bearer <token>'")
        principal = self._principals.get(_digest(given[len(_SCHEME) :].strip()))
        if principal is None:
            raise UnauthenticatedError("the bearer token is not one of this server's; ask its operator for one")
        return principal


def secret_of(token: str) -> str:
    """The secret of a `name:secret` or bare token."""
    name, colon, secret = token.partition(":")
    return secret if colon else name


def _principal(token: str) -> tuple[bytes, str]:
    name, colon, _ = token.partition(":")
    digest = _digest(secret_of(token))
    return digest, name if colon else f"token-{digest.hex()[:8]}"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
