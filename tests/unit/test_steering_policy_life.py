"""The moves of a policy's life, one by one; what a change keeps and what a way back brings."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from recsae.errors import ConflictError, FailedPreconditionError, InvalidRequestError, NotFoundError
from recsae.steering.policies import (
    Operation,
    OperationKind,
    Policy,
    PolicyDraft,
    PolicyState,
    Scope,
    Window,
    as_of,
    new_policy,
)
from recsae.steering.policy_life import brought_back, check_move, check_revision, draft_of, moved, updated

NOW = 1_790_000_000.0
DRAFT, SHADOW, LIVE, PAUSED = PolicyState.DRAFT, PolicyState.SHADOW, PolicyState.LIVE, PolicyState.PAUSED
SAID = PolicyDraft("test", "sasrec", (Operation("c-1", OperationKind.ADD, 1.0),), window=Window(end=NOW + 60))
ALLOWED = {
    (DRAFT, SHADOW),
    (SHADOW, DRAFT),
    (SHADOW, LIVE),
    (LIVE, SHADOW),
    (DRAFT, LIVE),
    (LIVE, PAUSED),
    (PAUSED, LIVE),
    (SHADOW, PAUSED),
    (PAUSED, SHADOW),
    (PAUSED, DRAFT),
}


def policy(state: PolicyState = LIVE, **changes: object) -> Policy:
    return replace(new_policy(SAID, actor="me", now=NOW, dictionary_version="d1"), state=state, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("begins", "to"), [pair for pair in product((DRAFT, SHADOW, LIVE, PAUSED), repeat=2) if pair[0] is not pair[1]]
)
def test_only_the_moves_there_are_can_be_made(begins: PolicyState, to: PolicyState) -> None:
    before = policy(begins)
    if (begins, to) not in ALLOWED:
        with pytest.raises(FailedPreconditionError, match=f"is {begins} and cannot become {to} at once; it can become"):
            moved(before, to, reason="why", now=NOW + 1)
        return
    after = moved(before, to, reason="why", now=NOW + 1)
    assert (after.state, after.revision, after.updated_at) == (to, 2, NOW + 1)
    assert after.state_reason == ("why" if to is PAUSED else "")
    assert replace(after, state=begins, revision=1, updated_at=NOW, state_reason="") == before


@pytest.mark.parametrize("to", [PolicyState.EXPIRED, PolicyState.REVERTED, PolicyState.SUSPENDED])
def test_states_that_follow_from_something_else_cannot_be_asked_for(to: PolicyState) -> None:
    with pytest.raises(InvalidRequestError, match=f"cannot be set {to}; ask for one of draft, shadow, live, paused"):
        check_move(policy(), to, NOW)


@pytest.mark.parametrize("to", [DRAFT, SHADOW, LIVE, PAUSED])
def test_what_ended_moves_no_more_and_says_what_to_do(to: PolicyState) -> None:
    with pytest.raises(FailedPreconditionError, match="UTC; update its window first, or make a new policy"):
        check_move(policy(), to, NOW + 60)
    with pytest.raises(FailedPreconditionError, match="was taken back, which is final; make a new policy"):
        check_move(policy(PolicyState.REVERTED), to, NOW)


def test_only_what_goes_live_needs_an_end() -> None:
    endless = replace(SAID, window=Window())
    draft = new_policy(endless, actor="me", now=NOW, state=DRAFT)
    assert as_of(draft, NOW + 1e9).state is DRAFT
    shadow = moved(draft, SHADOW, reason="why", now=NOW)
    with pytest.raises(InvalidRequestError, match="has no end; a live policy needs one"):
        moved(shadow, LIVE, reason="why", now=NOW)
    with pytest.raises(InvalidRequestError, match="has no end"):
        new_policy(endless, actor="me", now=NOW)
    with pytest.raises(InvalidRequestError, match="has no end"):
        updated(policy(LIVE), endless, now=NOW)
    assert updated(policy(PAUSED), endless, now=NOW).window == Window()


@pytest.mark.parametrize("state", [PAUSED, PolicyState.EXPIRED, PolicyState.REVERTED, PolicyState.SUSPENDED])
def test_a_policy_begins_as_draft_in_shadow_or_live(state: PolicyState) -> None:
    with pytest.raises(InvalidRequestError, match=f"cannot begin as {state}; make it draft or shadow or live"):
        new_policy(SAID, actor="me", now=NOW, state=state)


@pytest.mark.parametrize("state", [DRAFT, SHADOW, LIVE, PAUSED])
def test_an_update_changes_what_is_said_and_keeps_state_salt_and_origin(state: PolicyState) -> None:
    before = policy(state)
    said = PolicyDraft("other", "", (Operation("c-2", OperationKind.ABLATE),), Scope(("u",)), Window(end=NOW + 9), 7)
    after = updated(before, said, now=NOW + 1, dictionary_version="d2", outside_safe_range="far out")
    assert draft_of(after) == replace(said, model="sasrec")
    kept = ("id", "salt", "state", "created_at", "created_by")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    assert (after.revision, after.dictionary_version, after.outside_safe_range) == (2, "d2", "far out")


def test_an_update_gives_an_expired_policy_a_new_window_and_moves_none_to_another_model() -> None:
    again = updated(policy(), replace(SAID, window=Window(end=NOW + 999)), now=NOW + 60)
    assert as_of(again, NOW + 61).state is LIVE
    with pytest.raises(InvalidRequestError, match="steers sasrec and cannot move to bprmf; make a new policy there"):
        updated(policy(), replace(SAID, model="bprmf"), now=NOW)
    with pytest.raises(FailedPreconditionError, match="final"):
        updated(policy(PolicyState.REVERTED), SAID, now=NOW)


def test_a_change_from_a_revision_that_was_overtaken_is_a_conflict_that_names_both() -> None:
    check_revision(policy(revision=4), 4)
    check_revision(policy(revision=4), 0)
    with pytest.raises(ConflictError, match="is at revision 4, the change was made from 3; read it again"):
        check_revision(policy(revision=4), 3)


def test_a_way_back_brings_content_and_state_as_a_new_revision() -> None:
    first = policy(DRAFT)
    second = updated(first, replace(SAID, name="second"), now=NOW + 1, dictionary_version="d1")
    third = moved(second, LIVE, reason="go", now=NOW + 2)
    history = (third, second, first)
    back = brought_back(third, history, 0, reason="oops", now=NOW + 3)
    assert (back.state, back.name, back.revision, back.updated_at) == (DRAFT, "second", 4, NOW + 3)
    assert replace(back, revision=1, updated_at=NOW, name="test") == first
    assert brought_back(third, history, 1, reason="oops", now=NOW + 3).name == "test"
    for unknown in (3, 7):
        with pytest.raises(NotFoundError, match=f"keeps no earlier revision {unknown}; those to bring back: 2, 1"):
            brought_back(third, history, unknown, reason="oops", now=NOW + 3)


def test_a_policy_of_one_revision_is_taken_back_whole_and_that_is_final() -> None:
    gone = brought_back(policy(), (policy(),), 0, reason="oops", now=NOW + 1)
    assert (gone.state, gone.revision, gone.state_reason) == (PolicyState.REVERTED, 2, "oops")
    with pytest.raises(FailedPreconditionError, match="final"):
        brought_back(gone, (gone, policy()), 1, reason="oops", now=NOW + 2)


def test_a_live_revision_whose_window_is_over_is_not_brought_back() -> None:
    first = policy()
    second = updated(first, replace(SAID, window=Window(end=NOW + 999)), now=NOW + 1)
    assert brought_back(second, (second, first), 1, reason="oops", now=NOW + 59).window.end == NOW + 60
    with pytest.raises(
        FailedPreconditionError, match=r"revision 1 of policy .* was live until .* update the policy with"
    ):
        brought_back(second, (second, first), 1, reason="oops", now=NOW + 60)
    paused = replace(first, state=PAUSED)
    assert brought_back(second, (second, paused), 1, reason="oops", now=NOW + 60).state is PAUSED
