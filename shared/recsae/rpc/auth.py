"""The gate of a server: who calls (bearer token or client certificate), may they call this, and not too often.

A pure object that knows no gRPC server: the one interceptor asks it before a call queues, on the path of every
recommendation, so that `admit` costs two look-ups and keeps nothing per call. Not here: reading principals from
settings (`recsae.rpc.principals`), the table of roles (`recsae.rpc.roles`), counting (`recsae.rpc.quotas`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from recsae.errors import PermissionDeniedError, UnauthenticatedError
from recsae.rpc.principals import NOBODY_ASKED, Principal, Token, certificate_name, check_names, digest_of
from recsae.rpc.quotas import Limits, Quota, Refused
from recsae.rpc.request import AUTHORIZATION_KEY
from recsae.rpc.roles import ROLES, Role

_SCHEME = "bearer "
# Callers write one secret in few ways ("Bearer x", "bearer x"); more than this are looked up by digest each time.
_MOST_HEADERS = 1024


def _uncounted(_principal: str, _limit: str) -> None:
    """For servers without metrics."""


class Gate:
    """Admits calls: a token when one is sent, else the client certificate; no credentials configured = everyone."""

    def __init__(
        self,
        tokens: Sequence[Token] = (),
        certificates: Mapping[str, Principal] | None = None,
        limits: Limits | None = None,
        refused: Refused = _uncounted,
    ) -> None:
        """`certificates` are principals by the name in their certificate; `refused` counts refusals by the limits.

        InvalidRequestError when a name has one role by token and another by certificate.
        """
        limits = limits or Limits()
        self._certificates = dict(certificates or {})
        principals = [*(token.principal for token in tokens), *self._certificates.values()]
        check_names(principals)
        self._open = not principals
        self._by_digest = {token.digest: token.principal for token in tokens}
        # Keyed by the whole header: a dict compares strings only once their salted 64-bit hashes agree, so that time
        # tells a guesser nothing. Only headers with a valid secret get in.
        self._by_header: dict[str, Principal] = {}
        names = dict.fromkeys(principal.name for principal in principals or [NOBODY_ASKED])
        self._quotas = {name: Quota(name, limits, refused) for name in names} if limits.any else {}
        self.holds_calls = limits.in_flight > 0
        """True when calls in flight are limited, so that `enter` and `leave` have to be told of them."""
        self.settles_running_calls = self.holds_calls or bool(self._certificates)
        """True when something of admission is left to settle once a call runs."""

    def admit(self, method: str, metadata: Mapping[str, str]) -> Principal:
        """The principal that the `authorization` metadata proves, when it may call `method` now.

        UnauthenticatedError, PermissionDeniedError or ResourceExhaustedError else.
        """
        header = metadata.get(AUTHORIZATION_KEY, "")
        return self._allowed(method, self._by_header.get(header) or self._recognised(header))

    def caller(self, metadata: Mapping[str, str]) -> Principal | None:
        """Whom an admitted call is from; None when its client certificate will say."""
        if self.asks_certificate(metadata):
            return None
        header = metadata.get(AUTHORIZATION_KEY, "")
        return self._by_header.get(header) or self._recognised(header)

    def asks_certificate(self, metadata: Mapping[str, str]) -> bool:
        """True when no token came and a certificate may do: `admit_peer` then decides, once the call runs."""
        return bool(self._certificates) and AUTHORIZATION_KEY not in metadata

    def admit_peer(self, method: str, peer: Mapping[str, Iterable[bytes]]) -> Principal:
        """As `admit`, for the client certificate in gRPC's authentication context."""
        name = certificate_name(peer)
        principal = self._certificates.get(name)
        if principal is None:
            raise UnauthenticatedError(
                f"no bearer token came, and the client certificate's name {name[:128]!r} is not one of this server's "
                "principals; send metadata 'authorization: Bearer <token>' or have the name added to tls_principals"
            )
        return self._allowed(method, principal)

    def enter(self, principal: Principal) -> None:
        """Holds a call of the principal until `leave`; ResourceExhaustedError when it holds as many as it may."""
        if self.holds_calls:
            self._quotas[principal.name].enter()

    def leave(self, principal: Principal) -> None:
        """Ends what `enter` began."""
        if self.holds_calls:
            self._quotas[principal.name].leave()

    def _recognised(self, header: str) -> Principal:
        if self._open:
            return NOBODY_ASKED
        if header[: len(_SCHEME)].lower() != _SCHEME:
            raise UnauthenticatedError("no bearer token came; send metadata 'authorization: Bearer <token>'")
        principal = self._by_digest.get(digest_of(header[len(_SCHEME) :].strip()))
        if principal is None:
            raise UnauthenticatedError("the bearer token is not one of this server's; ask its operator for one")
        if len(self._by_header) < _MOST_HEADERS:
            self._by_header[header] = principal
        return principal

    def _allowed(self, method: str, principal: Principal) -> Principal:
        needed = ROLES.get(method)
        if needed is None or principal.role < needed:
            raise PermissionDeniedError(_too_low(method, principal, needed))
        if self._quotas:
            self._quotas[principal.name].take()
        return principal


def _too_low(method: str, principal: Principal, needed: Role | None) -> str:
    if needed is None:
        return f"{method} has no role, so nobody may call it; put it into the table of recsae.rpc.roles"
    return (
        f"principal {principal.name!r} is {principal.role}, and {method} needs {needed}: call it with a token or "
        f"certificate of role {needed}, or have the role of {principal.name!r} raised where the server is configured"
    )
