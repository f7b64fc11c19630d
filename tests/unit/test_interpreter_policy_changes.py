"""Use cases of a policy's life on a store in memory: who may, what is checked, what a repeated call does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.unit.measured_dictionaries import measured, record
from tests.unit.toy_interpreter import library_of, publish

from recsae.errors import (
    ConflictError,
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
)
from recsae.pipeline.triples import Triple
from recsae.rpc.request import RequestInfo
from recsae.rpc.roles import Role
from recsae.steering.matching import SteerContext
from recsae.steering.policies import Operation, OperationKind, Policy, PolicyDraft, PolicyState, Window
from recsae.steering.policy_store import Idempotency, InMemoryPolicyStore, Written
from recsae.steering.resolution import Outcome
from recsae.store.events import Change
from recsae_interpreter.board import PlanBoard
from recsae_interpreter.handlers.kill_switches import KillSwitchesHandler
from recsae_interpreter.handlers.policies import CreateQuery, PoliciesHandler
from recsae_interpreter.handlers.policy_changes import ChangeQuery, PolicyChanges, UpdateQuery
from recsae_interpreter.handlers.resolve import ResolveHandler
from recsae_interpreter.library import Library

FAR = 4e9
ADMIN = RequestInfo("r-1", principal="ada", role=Role.ADMIN)
OPERATOR = RequestInfo("r-2", principal="otto", role=Role.OPERATOR)
DRAFT, SHADOW, LIVE, PAUSED = PolicyState.DRAFT, PolicyState.SHADOW, PolicyState.LIVE, PolicyState.PAUSED


@dataclass
class Platform:
    """The handlers over one store and one library."""

    library: Library
    store: InMemoryPolicyStore

    def __post_init__(self) -> None:
        self.policies = PoliciesHandler(self.store, self.store.trail, self.library)
        self.changes = PolicyChanges(self.store, self.library)
        self.switches = KillSwitchesHandler(self.store, self.library)
        self.resolve = ResolveHandler(self.store, self.library, PlanBoard(norm_budget=10.0, kill_switch=False))

    def create(
        self,
        strength: float = 1.0,
        state: PolicyState = LIVE,
        *,
        concept: int = 3,
        allow: bool = False,
        info: RequestInfo = OPERATOR,
        key: str = "",
    ) -> Policy:
        query = CreateQuery(
            said(strength, concept), "because", key, b"create", allow_outside_safe_range=allow, state=state
        )
        return self.policies.create(query, info).policy

    def move(self, policy: Policy, to: PolicyState, *, allow: bool = False, info: RequestInfo = OPERATOR) -> Policy:
        return self.changes.set_state(ChangeQuery(policy.id, 0, "because"), to, allow=allow, info=info).policy

    def update(self, policy: Policy, strength: float, *, allow: bool = False, info: RequestInfo = OPERATOR) -> Policy:
        change = ChangeQuery(policy.id, policy.revision, "because")
        return self.changes.update(UpdateQuery(change, said(strength), (), allow), info).policy

    def revert(self, policy: Policy, to: int = 0, info: RequestInfo = OPERATOR) -> Policy:
        return self.changes.revert(ChangeQuery(policy.id, 0, "because"), to, info).policy

    def actions(self, policy: Policy) -> list[str]:
        return [event.change.action for event in reversed(self.store.trail.events(policy.id))]


def said(strength: float = 1.0, concept: int = 3) -> PolicyDraft:
    operation = Operation(f"c-toy-{concept}", OperationKind.ADD, strength)
    return PolicyDraft("more of it", "toy", (operation,), window=Window(end=FAR))


@pytest.fixture
def wide(tmp_path: Path) -> Triple:
    """A dictionary in which adding up to 1 is safe."""
    return measured(tmp_path, "toy", publish(tmp_path, "toy"), record(1.0))


@pytest.fixture
def platform(tmp_path: Path, wide: Triple) -> Platform:
    return Platform(library_of(tmp_path, {"toy": wide}), InMemoryPolicyStore())


def test_a_draft_and_a_policy_in_shadow_may_be_outside_the_safe_range_and_a_live_one_only_by_an_admin(
    platform: Platform,
) -> None:
    draft = platform.create(1.2, DRAFT)
    assert "c-toy-3:add=1.2 lies outside the safe range 0 to 1 of add" in draft.outside_safe_range
    shadow = platform.move(draft, SHADOW)
    with pytest.raises(FailedPreconditionError, match="or set allow_outside_safe_range"):
        platform.move(shadow, LIVE)
    with pytest.raises(FailedPreconditionError, match="outside the safe range"):
        platform.create(1.2)
    refusal = "'otto' has role operator, and allow_outside_safe_range needs admin; stay within the safe range, or ask"
    attempts: list[Callable[[], Policy]] = [
        lambda: platform.move(shadow, LIVE, allow=True),
        lambda: platform.create(1.2, allow=True),
        lambda: platform.create(1.0, allow=True),
        lambda: platform.update(shadow, 1.2, allow=True),
    ]
    for attempt in attempts:
        with pytest.raises(PermissionDeniedError, match=refusal):
            attempt()
    live = platform.move(shadow, LIVE, allow=True, info=ADMIN)
    assert (live.state, live.revision, live.outside_safe_range) == (LIVE, 3, draft.outside_safe_range)
    assert platform.actions(live) == ["policy.create", "policy.state", "policy.state"]


def test_a_live_policy_is_updated_within_its_safe_range_only_and_a_paused_one_when_it_goes_live(
    platform: Platform,
) -> None:
    live = platform.create(1.0)
    with pytest.raises(FailedPreconditionError, match="outside the safe range"):
        platform.update(live, 1.2)
    paused = platform.update(platform.move(live, PAUSED), 1.2)
    assert (paused.state, paused.revision) == (PAUSED, 3)
    with pytest.raises(FailedPreconditionError, match="outside the safe range"):
        platform.move(paused, LIVE)
    assert platform.move(platform.update(paused, 0.5), LIVE).outside_safe_range == ""


def test_an_update_needs_the_revision_that_was_seen_and_is_refused_when_it_is_no_longer_the_one(
    platform: Platform,
) -> None:
    first = platform.create()
    platform.update(first, 0.5)
    with pytest.raises(ConflictError, match="is at revision 2, the change was made from 1; read it again"):
        platform.update(first, 0.7)
    with pytest.raises(InvalidRequestError, match="revision is 0; send the revision you saw"):
        platform.update(replace(first, revision=0), 0.7)
    assert platform.store.get(first.id).operations[0].value == 0.5


def test_a_policy_in_the_state_asked_for_stays_as_it_is_and_nothing_is_written(platform: Platform) -> None:
    live = platform.create()
    assert platform.move(live, LIVE) == live
    paused = platform.move(live, PAUSED)
    assert platform.move(paused, PAUSED) == paused
    assert platform.actions(live) == ["policy.create", "policy.state"]


Write = Callable[[Platform, Policy, str, bytes], Written]
WRITES: dict[str, Write] = {
    "policy.create": lambda platform, _, key, asked: platform.policies.create(
        CreateQuery(said(), "because", key, asked), OPERATOR
    ),
    "policy.update": lambda platform, policy, key, asked: platform.changes.update(
        UpdateQuery(ChangeQuery(policy.id, 2, "because", key, asked), said(0.5)), OPERATOR
    ),
    "policy.state": lambda platform, policy, key, asked: platform.changes.set_state(
        ChangeQuery(policy.id, 2, "because", key, asked), PAUSED, allow=False, info=OPERATOR
    ),
    "policy.revert": lambda platform, policy, key, asked: platform.changes.revert(
        ChangeQuery(policy.id, 2, "because", key, asked), 1, OPERATOR
    ),
}


@pytest.mark.parametrize("action", WRITES)
def test_a_repeated_write_is_done_once_even_when_the_policy_has_moved_on_since(platform: Platform, action: str) -> None:
    policy = platform.update(platform.create(), 0.7)
    write = WRITES[action]
    first = write(platform, policy, "once", b"asked")
    platform.move(first.policy, SHADOW)
    before = platform.store.trail.revision()
    assert write(platform, policy, "once", b"asked") == first
    assert platform.store.trail.revision() == before
    with pytest.raises(ConflictError, match="idempotency_key was used for another request"):
        write(platform, policy, "once", b"asked for something else")
    other = next(name for name in WRITES if name != action)
    with pytest.raises(ConflictError, match="idempotency_key was used for another request"):
        WRITES[other](platform, policy, "once", b"asked")
    assert platform.store.trail.revision() == before


class Overtaken(InMemoryPolicyStore):
    """Somebody else's change gets in between the first writer's look and their write, once."""

    overtake: Callable[[Policy], object] | None = None

    def replace(self, policy: Policy, change: Change, idempotency: Idempotency = Idempotency()) -> Written:  # noqa: B008
        overtake, self.overtake = self.overtake, None
        if overtake is not None:
            overtake(policy)
        return super().replace(policy, change, idempotency)


def test_a_change_without_a_revision_is_decided_again_on_what_somebody_else_made(tmp_path: Path, wide: Triple) -> None:
    store = Overtaken()
    platform = Platform(library_of(tmp_path, {"toy": wide}), store)
    policy = platform.create()
    store.overtake = lambda _: platform.update(policy, 0.5)
    paused = platform.move(policy, PAUSED)
    assert (paused.state, paused.revision, paused.operations[0].value) == (PAUSED, 3, 0.5)
    store.overtake = lambda _: platform.move(policy, SHADOW)
    with pytest.raises(ConflictError, match="is at revision 4, the change was made from 3"):
        platform.changes.set_state(ChangeQuery(policy.id, 3, "because"), DRAFT, allow=False, info=OPERATOR)


def test_a_way_back_to_what_an_admin_had_allowed_needs_an_admin(platform: Platform) -> None:
    bold = platform.create(1.2, allow=True, info=ADMIN)
    tame = platform.update(bold, 0.5)
    with pytest.raises(PermissionDeniedError, match="'otto' has role operator, and an admin had allowed that revision"):
        platform.revert(tame)
    back = platform.revert(tame, info=ADMIN)
    assert (back.state, back.revision, back.outside_safe_range) == (LIVE, 3, bold.outside_safe_range)
    assert [one.revision for one in platform.policies.revisions(bold.id)] == [3, 2, 1]


def test_reverting_twice_is_undoing_the_undo_and_a_new_policy_is_taken_back_whole(platform: Platform) -> None:
    first = platform.create()
    changed = platform.update(first, 0.5)
    assert platform.revert(changed).operations == first.operations
    assert platform.revert(changed).operations == changed.operations
    assert platform.revert(platform.create()).state is PolicyState.REVERTED


def test_a_narrower_safe_range_suspends_what_was_made_within_the_old_one_until_somebody_decides(
    tmp_path: Path, platform: Platform, wide: Triple
) -> None:
    made, tame = platform.create(1.0), platform.create(0.4)
    allowed = platform.create(1.2, allow=True, info=ADMIN)
    shadow, paused = platform.create(1.0, SHADOW), platform.move(platform.create(1.0), PAUSED)
    later = measured(tmp_path, "toy", wide, record(0.5), refresh=True)
    platform = Platform(library_of(tmp_path, {"toy": later}), platform.store)
    shown = {one.id: one for one in platform.policies.listed("toy", include_ended=False)}
    states = {one.id: shown[one.id].state for one in (made, tame, allowed, shadow, paused)}
    assert list(states.values()) == [PolicyState.SUSPENDED, LIVE, LIVE, SHADOW, PAUSED]
    why = shown[made.id].state_reason
    assert why.startswith(f"it was within the safe range of dictionary {wide.dictionary_version}, but by ")
    assert f"{later.dictionary_version} c-toy-3:add=1 lies outside the safe range 0 to 0.5 of add" in why
    with pytest.raises(FailedPreconditionError, match=r"outside the safe range 0 to 0\.5"):
        platform.move(made, LIVE)
    again = platform.move(made, LIVE, allow=True, info=ADMIN)
    assert (again.state, again.revision, again.dictionary_version) == (LIVE, 2, later.dictionary_version)
    assert platform.update(replace(again, revision=2), 0.5).outside_safe_range == ""


def test_a_concept_in_doubt_keeps_a_draft_from_going_live(tmp_path: Path, platform: Platform) -> None:
    draft = platform.create(1.0, DRAFT)
    # Another SAE's dictionary with the same ids, which does not go back to the one the draft was made for.
    strange = measured(tmp_path, "toy", publish(tmp_path, "toy", seed=5), record(1.0))
    platform = Platform(library_of(tmp_path, {"toy": strange}), platform.store)
    with pytest.raises(FailedPreconditionError, match="cannot go live: c-toy-3 was named for dictionary"):
        platform.move(draft, LIVE)
    assert platform.move(platform.update(draft, 1.0), LIVE).state is LIVE


def test_a_kill_switch_is_written_once_with_who_and_why_and_only_for_models_there_are(platform: Platform) -> None:
    on = platform.switches.set("", on=True, reason="looks wrong", info=OPERATOR)
    assert platform.switches.set("", on=True, reason="again", info=ADMIN) == on
    one = platform.switches.set("toy@final", on=True, reason="this too", info=OPERATOR)
    assert (one.switch.model, one.switch.actor, one.plan_revision) == ("toy", "otto", 2)
    assert platform.switches.listed() == [on.switch, one.switch]
    off = platform.switches.set("toy", on=False, reason="found it", info=ADMIN)
    assert (off.switch.on, off.plan_revision) == (False, 3)
    with pytest.raises(NotFoundError, match=r"no model 'tuy' to switch off \(there are: toy\)"):
        platform.switches.set("tuy", on=True, reason="typo", info=OPERATOR)
    with pytest.raises(InvalidRequestError, match="reason has 0"):
        platform.switches.set("toy", on=True, reason="", info=OPERATOR)
    events = platform.store.trail.events("kill-switch/toy")
    assert [(one.change.action, one.change.actor) for one in events] == [
        ("killswitch.set", name) for name in ("ada", "otto")
    ]


def test_what_wins_is_said_with_labels_switches_and_what_all_of_it_costs_together(platform: Platform) -> None:
    first, second = platform.create(concept=3), platform.create(concept=4)
    paused = platform.move(platform.create(concept=5), PAUSED)
    found = platform.resolve("", SteerContext("ann"), None)
    assert [(one.policy.id, one.outcome) for one in found.verdicts] == [
        (first.id, Outcome.APPLIES),
        (second.id, Outcome.APPLIES),
        (paused.id, Outcome.NOT_IN_FORCE),
    ]
    assert (found.model, found.labels["c-toy-3"], found.kill_switch) == ("toy", "Concept 3", False)
    assert found.outside_safe_range == ""
    for number in range(6, 10):
        platform.create(concept=number)
    together = platform.resolve("toy", SteerContext("ann"), None).outside_safe_range
    assert "these 6 changes are safe one by one, but their bounds add up to 6.0% of NDCG@10" in together
    platform.switches.set("toy", on=True, reason="stop", info=OPERATOR)
    assert platform.resolve("toy", SteerContext("ann"), None).kill_switch
    assert platform.resolve("toy", SteerContext("ann"), FAR).verdicts == ()


def test_a_repeated_create_is_answered_even_when_it_would_be_refused_by_now(
    tmp_path: Path, platform: Platform, wide: Triple
) -> None:
    made = platform.create(1.0, key="once")
    later = measured(tmp_path, "toy", wide, record(0.5), refresh=True)
    platform = Platform(library_of(tmp_path, {"toy": later}), platform.store)
    with pytest.raises(FailedPreconditionError, match="outside the safe range"):
        platform.create(1.0)
    assert platform.create(1.0, key="once").id == made.id
