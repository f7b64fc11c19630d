"""Use case of policies that come as a file: each is written as exported, with id, salt and state, if it holds here.

Each is a write of its own with its event, so an import that was cut short is repeated: what is written is then found
unchanged. Not here: restoring a whole server (`recsae restore`).
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from recsae.errors import InvalidRequestError, RecsaeError, UnavailableError
from recsae.rpc.request import RequestInfo
from recsae.steering.policies import Policy, PolicyDraft, PolicyState, new_id, validate_draft, validate_reason
from recsae.steering.policy_life import check_not_final, draft_of
from recsae.steering.policy_store import Idempotency, PolicyStore, Written
from recsae.store.events import change_now
from recsae_interpreter.handlers.policy_checks import check_allowed, checked_draft
from recsae_interpreter.library import Library
from recsae_interpreter.policy_view import as_shown

MOST_POLICIES = 1_000
_ID = re.compile(r"p-[0-9A-Za-z_-]{1,64}")
_SALT = re.compile(r"[0-9A-Za-z_-]{1,64}")
# Follow from time and dictionary and are not stored; a policy that comes in one of them waits for a person.
_COMPUTED = (PolicyState.EXPIRED, PolicyState.SUSPENDED)


@dataclass(frozen=True)
class PolicyEntry:
    """A policy of a file. Without an id it gets one, without a salt the one of the policy it replaces, or one.

    `created_at` in seconds since the epoch, 0 = now.
    """

    id: str
    salt: str
    state: PolicyState
    created_at: float
    draft: PolicyDraft


@dataclass(frozen=True)
class ImportQuery:
    """Policies and why. `overwrite` replaces those of the same id that differ; `allow_outside_safe_range` as usual."""

    entries: Sequence[PolicyEntry]
    reason: str
    overwrite: bool = False
    allow_outside_safe_range: bool = False


@dataclass(frozen=True)
class Imported:
    """What became of one: created, replaced, unchanged, kept or refused; `reason` says why of the last two."""

    policy_id: str
    outcome: str
    reason: str = ""


@dataclass(frozen=True)
class ImportDone:
    """What became of each, in the order they came, and the plan revision from which they are in force."""

    policies: tuple[Imported, ...]
    plan_revision: int


class PolicyImportHandler:
    """Imports policies."""

    def __init__(self, policies: PolicyStore, library: Library) -> None:
        """Keeps its collaborators."""
        self._policies = policies
        self._library = library

    def __call__(self, query: ImportQuery, info: RequestInfo) -> ImportDone:
        """Writes what holds here and differs; a policy that does not hold is refused, the others are not.

        InvalidRequestError for too many or one id twice; UnavailableError when the store does not answer.
        """
        validate_reason(query.reason)
        _check_entries(query.entries)
        snapshot = self._policies.snapshot()
        stored = {policy.id: policy for policy in snapshot.policies}
        unreadable = set(snapshot.unreadable)
        revision = snapshot.revision
        done: list[Imported] = []
        for entry in query.entries:
            try:
                if entry.id in unreadable:
                    raise InvalidRequestError("a newer release wrote the one that is here; run that release to import")
                outcome, written = self._one(entry, stored.get(entry.id), query, info)
            except UnavailableError:
                raise
            except RecsaeError as error:
                done.append(Imported(entry.id, "refused", str(error)))
                continue
            done.append(outcome)
            revision = max(revision, written.plan_revision if written else 0)
        return ImportDone(tuple(done), revision)

    def _one(
        self, entry: PolicyEntry, stored: Policy | None, query: ImportQuery, info: RequestInfo
    ) -> tuple[Imported, Written | None]:
        change = change_now(
            actor=info.principal, action="policy.import", reason=query.reason, request_id=info.request_id
        )
        now = change.at
        if stored is not None and self._same(entry, stored, now):
            return Imported(stored.id, "unchanged"), None
        if stored is not None and not query.overwrite:
            return Imported(stored.id, "kept", "another one of this id is here; set replace to overwrite it"), None
        if stored is not None:
            check_not_final(stored)
        policy = self._checked(entry, now, allow=query.allow_outside_safe_range, info=info)
        if stored is None:
            return Imported(policy.id, "created"), self._policies.create(policy, change, Idempotency())
        after = replace(
            policy,
            salt=entry.salt or stored.salt,
            revision=stored.revision + 1,
            created_at=stored.created_at,
            created_by=stored.created_by,
        )
        return Imported(policy.id, "replaced"), self._policies.replace(after, change)

    def _same(self, entry: PolicyEntry, stored: Policy, now: float) -> bool:
        states = (stored.state, as_shown(stored, self._library.shelf, now).state)
        return draft_of(stored) == entry.draft and entry.salt in ("", stored.salt) and entry.state in states

    def _checked(self, entry: PolicyEntry, now: float, *, allow: bool, info: RequestInfo) -> Policy:
        """The policy as a new one, checked like one; of one that is over, only whether it could have been made."""
        state = PolicyState.PAUSED if entry.state in _COMPUTED else entry.state
        draft, version, outside = entry.draft, "", ""
        if entry.state.ended:
            end = draft.window.end
            validate_draft(draft, now if end is None else min(now, end - 1e-3), PolicyState.DRAFT)
        else:
            checked = checked_draft(draft, (), self._library, now=now, state=state)
            draft, version, outside = checked.draft, checked.dictionary_version, checked.outside_safe_range
            check_allowed(outside, state, allow=allow, info=info)
        made_at = min(entry.created_at or now, now)
        return Policy(
            id=entry.id or new_id(now),
            name=draft.name,
            model=draft.model,
            operations=draft.operations,
            scope=draft.scope,
            window=draft.window,
            priority=draft.priority,
            state=state,
            salt=entry.salt or secrets.token_hex(8),
            created_at=round(made_at, 6),
            updated_at=round(now, 6),
            created_by=info.principal,
            state_reason=f"was {entry.state} where it came from" if entry.state in _COMPUTED else "",
            dictionary_version=version,
            outside_safe_range=outside,
        )


def _check_entries(entries: Sequence[PolicyEntry]) -> None:
    if len(entries) > MOST_POLICIES:
        raise InvalidRequestError(f"{len(entries)} policies came; send at most {MOST_POLICIES} in one call")
    for entry in entries:
        if entry.id and not _ID.fullmatch(entry.id):
            raise InvalidRequestError(f"{entry.id!r} is no policy id; leave it out for a new one")
        if entry.salt and not _SALT.fullmatch(entry.salt):
            raise InvalidRequestError(f"the salt of policy {entry.id!r} is not one; leave it out for a new one")
    twice = [name for name, times in Counter(entry.id for entry in entries if entry.id).items() if times > 1]
    if twice:
        raise InvalidRequestError(f"policy {twice[0]} comes more than once; send each one time")
