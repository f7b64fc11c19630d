"""The one error hierarchy. Each error says what was wrong, with which value, and what to do.

The `code` is stable and travels over gRPC (`recsae.rpc.status` maps it); the message is for people.
"""

from __future__ import annotations

from typing import ClassVar


class RecsaeError(Exception):
    """An error with a stable code and a message that names the value and the remedy."""

    code: ClassVar[str] = "internal"


class InvalidRequestError(RecsaeError):
    """The caller sent something that can never work."""

    code = "invalid_request"


class NotFoundError(RecsaeError):
    """The thing named does not exist."""

    code = "not_found"


class ConflictError(RecsaeError):
    """Somebody else changed it first; read again and retry."""

    code = "conflict"


class FailedPreconditionError(RecsaeError):
    """The request is right, the state is not: e.g. another version is loaded."""

    code = "failed_precondition"


class UnavailableError(RecsaeError):
    """A dependency did not answer; the same call may work later."""

    code = "unavailable"


class DeadlineExceededError(RecsaeError):
    """The time the caller gave ran out."""

    code = "deadline_exceeded"


class ResourceExhaustedError(RecsaeError):
    """A bound was reached; the call was shed before it could queue."""

    code = "resource_exhausted"


class PermissionDeniedError(RecsaeError):
    """The principal is known and may not do this."""

    code = "permission_denied"


class UnauthenticatedError(RecsaeError):
    """No valid credentials were given."""

    code = "unauthenticated"


class CorruptArtifactError(RecsaeError):
    """A file does not match the checksum its manifest promises."""

    code = "corrupt_artifact"
