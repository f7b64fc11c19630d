"""One exposure: what a sampled response showed under which policies, and its line in the log.

A user is a keyed pseudonym here; the id, the history and the attributes are never written. Not here: files
(`segments`), when a line is written (`log`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from recsae.errors import InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.steering.receipts import PolicyRef, UnsteeredReason

SCHEMA = 1
# Pseudonyms under a key that a process made for itself begin so: they do not join across processes or restarts.
OWN_KEY = "~"
# Request ids of replayed traffic begin so; an experiment on the log leaves them out.
REPLAYED = "replay-"


@dataclass(frozen=True)
class ShadowExposure:
    """What the matching policies in shadow would have shown; `reason` as in `ShadowOutcome`.

    `item_ids` None = the list was not computed (they would not have applied, or ranking it failed); `overlap` is the
    share of the two lists' items in common, 0 to 1, of the longer one.
    """

    policies: tuple[PolicyRef, ...]
    delta_share: float
    reason: UnsteeredReason
    item_ids: tuple[str, ...] | None = None
    overlap: float | None = None


@dataclass(frozen=True)
class Exposure:
    """One response: `at` in seconds since the epoch, `user` a pseudonym or "", `item_ids` best first.

    The rest is what the response's receipt said.
    """

    at: float
    request_id: str
    user: str
    model: str
    triple: Triple
    plan_revision: int
    reason: UnsteeredReason
    item_ids: tuple[str, ...]
    applied: tuple[PolicyRef, ...] = ()
    held_out: tuple[PolicyRef, ...] = ()
    delta_share: float = 0.0
    shadow: ShadowExposure | None = None


def overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """Share of the longer list's items that both hold, 0 to 1; 1 where both are empty."""
    longest = max(len(one), len(other))
    return len(set(one) & set(other)) / longest if longest else 1.0


def to_line(exposure: Exposure) -> bytes:
    """The exposure as one line of JSON, newline included."""
    shadow = exposure.shadow
    fields: dict[str, Any] = {
        "v": SCHEMA,
        "at": round(exposure.at, 3),
        "request": exposure.request_id,
        "user": exposure.user,
        "model": exposure.model,
        "versions": [
            exposure.triple.model_version,
            exposure.triple.sae_version,
            exposure.triple.dictionary_version,
        ],
        "plan": exposure.plan_revision,
        "reason": exposure.reason.value,
        "applied": _pairs(exposure.applied),
        "held_out": _pairs(exposure.held_out),
        "share": exposure.delta_share,
        "items": list(exposure.item_ids),
    }
    if shadow is not None:
        fields["shadow"] = {
            "policies": _pairs(shadow.policies),
            "share": shadow.delta_share,
            "reason": shadow.reason.value,
            "items": None if shadow.item_ids is None else list(shadow.item_ids),
            "overlap": shadow.overlap,
        }
    return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def from_line(line: bytes) -> Exposure:
    """The exposure of a line; InvalidRequestError when it is torn, or of another schema."""
    try:
        fields = json.loads(line)
        schema = fields["v"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequestError("the line is no exposure: it was torn, or something else wrote it") from error
    if schema != SCHEMA:
        raise InvalidRequestError(
            f"the line has schema {schema}, this release reads {SCHEMA}; read it with a newer one"
        )
    try:
        return _exposure(fields)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequestError(f"the line is no exposure of schema {SCHEMA}: {type(error).__name__}") from error


def _exposure(fields: dict[str, Any]) -> Exposure:
    model_version, sae_version, dictionary_version = fields["versions"]
    shadow = fields.get("shadow")
    return Exposure(
        at=float(fields["at"]),
        request_id=fields["request"],
        user=fields["user"],
        model=fields["model"],
        triple=Triple(model_version, sae_version, dictionary_version),
        plan_revision=int(fields["plan"]),
        reason=UnsteeredReason(fields["reason"]),
        item_ids=tuple(fields["items"]),
        applied=_refs(fields["applied"]),
        held_out=_refs(fields["held_out"]),
        delta_share=float(fields["share"]),
        shadow=None if shadow is None else _shadow(shadow),
    )


def _shadow(fields: dict[str, Any]) -> ShadowExposure:
    return ShadowExposure(
        policies=_refs(fields["policies"]),
        delta_share=float(fields["share"]),
        reason=UnsteeredReason(fields["reason"]),
        item_ids=None if fields["items"] is None else tuple(fields["items"]),
        overlap=fields["overlap"],
    )


def _pairs(refs: Iterable[PolicyRef]) -> list[list[str | int]]:
    return [[ref.policy_id, ref.revision] for ref in refs]


def _refs(pairs: Iterable[Sequence[Any]]) -> tuple[PolicyRef, ...]:
    return tuple(PolicyRef(str(policy_id), int(revision)) for policy_id, revision in pairs)
