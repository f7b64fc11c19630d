"""What the interpreter checks of operations before a policy may carry them: concepts, handles, safe range, role.

Not here: writing policies (`policies`, `policy_changes`) and the rules themselves (`recsae.steering`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from recsae.errors import FailedPreconditionError, InvalidRequestError, PermissionDeniedError
from recsae.rpc.request import RequestInfo
from recsae.rpc.roles import Role
from recsae.steering.plans import Basis
from recsae.steering.policies import Operation, PolicyDraft, PolicyState, validate_draft
from recsae.steering.safety import Effects, HandleUse, expanded, find_handle, outside_safe_range, told_apart
from recsae_interpreter.library import Library
from recsae_interpreter.loading import LoadedTriple


@dataclass(frozen=True)
class HandleDose:
    """The facet of a handle, and the dose."""

    facet: str
    dose: float


@dataclass(frozen=True)
class CheckedDraft:
    """A draft that can work with the promoted dictionary; `outside_safe_range` says why it is not known to be safe."""

    draft: PolicyDraft
    dictionary_version: str
    outside_safe_range: str


def checked_draft(
    asked: PolicyDraft, handles: Iterable[HandleDose], library: Library, *, now: float, state: PolicyState
) -> CheckedDraft:
    """The draft with its handles written out, for a policy in `state`; without a model for the only one there is.

    InvalidRequestError and NotFoundError name what cannot work; FailedPreconditionError for a hook that can only be
    read, and where there are several models and none is named.
    """
    if not asked.model:
        asked = replace(asked, model=library.model("").model)
    handles = tuple(handles)
    uses = handle_uses(handles, library.model(asked.model)) if handles else ()
    draft = replace(asked, operations=expanded(asked.operations, uses))
    validate_draft(draft, now, state)
    loaded = library.model(draft.model)
    check_steerable(loaded)
    check_concepts(draft.operations, loaded.basis)
    rest, written_out = told_apart(asked.operations, loaded.dictionary.handles)
    outside = outside_safe_range(rest, (*written_out, *uses), effects_of(loaded))
    # Its first hook may have been named.
    return CheckedDraft(replace(draft, model=loaded.model), loaded.triple.dictionary_version, outside)


def check_allowed(outside: str, state: PolicyState, *, allow: bool, info: RequestInfo) -> None:
    """Refuses to put in force what is not known to be safe, unless an admin asks for it (`allow`).

    FailedPreconditionError says why it is not safe, PermissionDeniedError who may ask. Drafts and policies in shadow
    change nobody's list: they may be outside, and are asked again when they go live.
    """
    if allow and info.role < Role.ADMIN:
        raise PermissionDeniedError(
            f"principal {info.principal!r} has role {info.role}, and allow_outside_safe_range needs {Role.ADMIN}; "
            "stay within the safe range, or ask an admin"
        )
    if outside and not allow and state is PolicyState.LIVE:
        raise FailedPreconditionError(outside)


def check_concepts(operations: tuple[Operation, ...], basis: Basis) -> None:
    """InvalidRequestError names the first concept that is not a live one of the promoted dictionary."""
    for operation in operations:
        if operation.concept_id not in basis.latents:
            raise InvalidRequestError(
                f"concept {operation.concept_id!r} is no live concept of dictionary {basis.triple.dictionary_version}, "
                f"which is promoted for {basis.model}; list or search for its id"
            )


def check_steerable(loaded: LoadedTriple) -> None:
    """FailedPreconditionError for a hook that can only be read."""
    if not loaded.steerable:
        raise FailedPreconditionError(loaded.read_only("steer the concepts of the model's first hook instead"))


def handle_uses(handles: Iterable[HandleDose], loaded: LoadedTriple) -> tuple[HandleUse, ...]:
    """Handles of the promoted dictionary by their facets; NotFoundError names those there are."""
    check_steerable(loaded)
    return tuple(find_handle(loaded.dictionary.handles, one.facet, one.dose) for one in handles)


def effects_of(loaded: LoadedTriple) -> Effects:
    """What is known of a concept's effects, by its id."""
    return lambda concept_id: loaded.dictionary.by_id(concept_id).causal
