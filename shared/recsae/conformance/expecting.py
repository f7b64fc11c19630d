"""Requests that must be refused: by which status, and what to say when they are answered instead."""

from __future__ import annotations

from collections.abc import Callable

from recsae.conformance.asking import RefusedError
from recsae.conformance.outcomes import BrokenError

INVALID = ("INVALID_ARGUMENT",)
NOT_FOUND = ("NOT_FOUND",)
OTHER_VERSION = ("FAILED_PRECONDITION",)
TOO_LARGE = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")


def refused(call: Callable[[], object], asked: str, codes: tuple[str, ...], why: str) -> str:
    """The status it was refused with; `BrokenError` when it was answered, or refused by a status not in `codes`."""
    wanted = " or ".join(codes)
    try:
        call()
    except RefusedError as refusal:
        if refusal.code not in codes:
            came = f"{refusal.code}: {refusal.sentence}" if refusal.sentence else refusal.code
            raise BrokenError(asked, came, f"refuse it with {wanted}: {why}") from refusal
        return refusal.code
    raise BrokenError(asked, "it was answered", f"refuse it with {wanted}: {why}")
