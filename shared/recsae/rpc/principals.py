"""Principals: who calls, with which role, as settings write them: bearer tokens and names in client certificates.

A secret is read once and kept as its SHA-256 alone; no sentence here repeats one. Not here: what each call needs
(`recsae.rpc.roles`) and the check of it (`recsae.rpc.auth`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from recsae.errors import InvalidRequestError
from recsae.rpc.request import ANONYMOUS
from recsae.rpc.roles import Role

TOKEN_FORM = "name:role:secret"
SHORTEST_SECRET = 16

# Names end up in logs, metrics and the audit: bounded, and no character that could forge a line.
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
# Those of certificates may be addresses, e.g. spiffe://mesh.example/recommender.
_CERTIFICATE_NAME = re.compile(r"[A-Za-z0-9._@:/ *-]{1,128}")
# What metadata carries as it is, and what settings and the forms of a token leave free.
_SECRET = re.compile(r"[!-~]+")
_ROLES = ", ".join(map(str, Role))


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and what they may do."""

    name: str
    role: Role


NOBODY_ASKED = Principal(ANONYMOUS, Role.ADMIN)
"""Everyone, on a server without credentials, which only loopback reaches."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a bearer token proves; `digest` is the SHA-256 of its secret."""

    principal: Principal
    digest: bytes


def digest_of(secret: str) -> bytes:
    """By what secrets are looked up: the time taken says nothing about how much of a guess was right."""
    return hashlib.sha256(secret.encode()).digest()


def read_tokens(texts: Sequence[str]) -> tuple[Token, ...]:
    """Tokens as settings write them; InvalidRequestError names a wrong one by its place, never by its content.

    One name may have several secrets, so that they can be changed without a gap, but one role.
    """
    tokens = tuple(_read_token(text, f"token {place} of {len(texts)}") for place, text in enumerate(texts, start=1))
    check_names(token.principal for token in tokens)
    if len({token.digest for token in tokens}) < len(tokens):
        raise InvalidRequestError("two tokens have the same secret, so a call's principal is open; give each its own")
    return tokens


def read_certificate_principals(texts: Sequence[str]) -> dict[str, Principal]:
    """Principals by the name in their client certificate, from `name=role`; InvalidRequestError names a wrong one."""
    principals = []
    for text in texts:
        name, _, role = text.rpartition("=")
        if not _CERTIFICATE_NAME.fullmatch(name) or name == ANONYMOUS or _role(role) is None:
            raise InvalidRequestError(
                f"{text!r} is not `name=role` with the common name of a client certificate and one of the roles "
                f"{_ROLES}, e.g. recommender=operator"
            )
        principals.append(Principal(name, Role[role.upper()]))
    check_names(principals)
    return {principal.name: principal for principal in principals}


def check_names(principals: Iterable[Principal]) -> None:
    """InvalidRequestError when one name has two roles: the audit could not tell which of them acted."""
    roles: dict[str, Role] = {}
    for principal in principals:
        other = roles.setdefault(principal.name, principal.role)
        if other is not principal.role:
            raise InvalidRequestError(
                f"principal {principal.name!r} comes as {other} and as {principal.role}; use a name for each role"
            )


def certificate_name(peer: Mapping[str, Iterable[bytes]]) -> str:
    """The name a verified client certificate gives its holder: its common name, else its first alternative name.

    `peer` is gRPC's authentication context of the call; "" when the certificate names nobody.
    """
    for key in ("x509_common_name", "x509_subject_alternative_name"):
        for value in peer.get(key, ()):
            if value:
                return value.decode(errors="replace")
    return ""


def _read_token(text: str, place: str) -> Token:
    name, _, rest = text.partition(":")
    role, _, secret = rest.partition(":")
    known = _role(role)
    if not _NAME.fullmatch(name) or name == ANONYMOUS or known is None or not secret:
        raise InvalidRequestError(
            f"{place} is not `{TOKEN_FORM}` with a name of letters, digits and ._@- and one of the roles {_ROLES}, "
            "e.g. alice:operator:$(openssl rand -hex 24)"
        )
    if ":" in secret or not _SECRET.fullmatch(secret):
        raise InvalidRequestError(f"the secret of {place} has a colon, a space or a letter outside ASCII; try another")
    if len(secret) < SHORTEST_SECRET:
        raise InvalidRequestError(
            f"the secret of {place} is shorter than {SHORTEST_SECRET} characters; try `openssl rand -hex 24`"
        )
    return Token(Principal(name, known), digest_of(secret))


def _role(text: str) -> Role | None:
    return next((role for role in Role if str(role) == text), None)
