"""Policy stores: one contract for both, and nothing acknowledged lost when the server is killed in the middle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import pytest

from recsae.errors import ConflictError, InvalidRequestError, NotFoundError, UnavailableError
from recsae.steering.kill_switch import KillSwitch
from recsae.steering.policies import Operation, OperationKind, Policy, PolicyDraft, Scope, Window, new_policy, reverted
from recsae.steering.policy_json import policy_from_json, policy_to_json
from recsae.steering.policy_store import REVISIONS_KEPT, Idempotency, InMemoryPolicyStore, PolicyStore, switch_from_json
from recsae.steering.policy_store_redis import RedisPolicyStore
from recsae.steering.segments import AllOf, Equals, Exists, In, Not, Range
from recsae.store.events import AuditTrail, Change, RedisTrail
from recsae.store.redis import connect

NOW = 1_790_000_000.25
CREATE = Change("me", "policy.create", "because", "r-1", NOW)
UPDATE = Change("me", "policy.update", "better", "r-3", NOW + 2)
DELETE = Change("you", "policy.delete", "wrong", "r-2", NOW + 1)
SEGMENT = AllOf((Equals("country", "DE"), Not(In("age", (1.0, "x", True))), Range("score", 0.5, None), Exists("b")))


def policy(name: str = "More horror", now: float = NOW) -> Policy:
    draft = PolicyDraft(
        name,
        "sasrec",
        (Operation("c-1", OperationKind.ADD, 1.5), Operation("c-2", OperationKind.ABLATE)),
        Scope(("u-1", "ü-2"), SEGMENT, 12.5),
        Window(NOW, NOW + 60),
        priority=-7,
    )
    return new_policy(draft, actor="me", now=now)


class KillableServer(Protocol):
    """The server of the fixture `redis_server`."""

    @property
    def url(self) -> str: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...


@dataclass
class Both:
    policies: PolicyStore
    trail: AuditTrail


@pytest.fixture(params=["memory", "redis"])
def both(request: pytest.FixtureRequest) -> Iterator[Both]:
    if request.param == "memory":
        store = InMemoryPolicyStore()
        yield Both(store, store.trail)
    else:
        with connect(request.getfixturevalue("redis_url")) as client:
            yield Both(RedisPolicyStore(client), RedisTrail(client))


def test_a_policy_comes_back_equal_with_its_event(both: Both) -> None:
    made = policy()
    written = both.policies.create(made, CREATE, Idempotency())
    assert (written.policy, written.plan_revision) == (made, 1)
    assert both.policies.get(made.id) == made
    (event,) = both.trail.events()
    assert (event.subject, event.change, event.before_json, event.revision) == (made.id, CREATE, "", 1)
    assert policy_from_json(event.after_json) == made


def test_a_snapshot_holds_every_policy_oldest_first_and_the_revision_they_are_of(both: Both) -> None:
    newer, older = policy("newer", NOW + 5), policy("older", NOW)
    for one in (newer, older):
        both.policies.create(one, CREATE, Idempotency())
    snapshot = both.policies.snapshot()
    assert (snapshot.revision, snapshot.policies) == (2, (older, newer))


def test_a_change_from_the_stored_revision_is_written_with_before_and_after(both: Both) -> None:
    made = policy()
    both.policies.create(made, CREATE, Idempotency())
    gone = reverted(made, reason="wrong", now=NOW + 1)
    written = both.policies.replace(gone, DELETE)
    assert (written.policy, written.plan_revision) == (gone, 2)
    event = both.trail.events(made.id, limit=1)[0]
    assert (policy_from_json(event.before_json), policy_from_json(event.after_json)) == (made, gone)
    assert event.change == DELETE


def test_a_change_from_an_old_revision_is_refused_and_writes_nothing(both: Both) -> None:
    made = policy()
    both.policies.create(made, CREATE, Idempotency())
    gone = reverted(made, reason="wrong", now=NOW + 1)
    both.policies.replace(gone, DELETE)
    with pytest.raises(ConflictError, match="at revision 2, the change was made from 1"):
        both.policies.replace(replace(made, revision=2, name="other"), DELETE)
    assert both.policies.get(made.id) == gone
    assert both.trail.revision() == 2


def test_a_policy_nobody_made_is_not_found(both: Both) -> None:
    with pytest.raises(NotFoundError, match="no policy 'p-1'"):
        both.policies.get("p-1")
    with pytest.raises(NotFoundError):
        both.policies.replace(reverted(policy(), reason="x", now=NOW), DELETE)


def test_a_repeated_key_returns_what_the_first_call_stored(both: Both) -> None:
    key = Idempotency.of("k", actor="me", request=b"same")
    first = both.policies.create(policy(), CREATE, key)
    both.policies.replace(reverted(first.policy, reason="x", now=NOW), DELETE)
    assert both.policies.create(policy(), CREATE, key) == first
    assert both.trail.revision() == 2


def test_a_key_used_for_another_request_is_refused_and_counts_per_actor(both: Both) -> None:
    both.policies.create(policy(), CREATE, Idempotency.of("k", actor="me", request=b"one"))
    with pytest.raises(ConflictError, match="used for another request"):
        both.policies.create(policy(), CREATE, Idempotency.of("k", actor="me", request=b"two"))
    both.policies.create(policy(), CREATE, Idempotency.of("k", actor="you", request=b"two"))
    assert both.trail.revision() == 2


def test_a_key_too_long_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="65 characters"):
        Idempotency.of("k" * 65, actor="me", request=b"")


def test_of_many_changes_from_one_revision_exactly_one_is_written(both: Both) -> None:
    made = policy()
    both.policies.create(made, CREATE, Idempotency())
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def change(number: int) -> None:
        barrier.wait()
        try:
            both.policies.replace(reverted(made, reason=str(number), now=NOW), DELETE)
            outcomes.append("won")
        except ConflictError:
            outcomes.append("lost")

    threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 7 + ["won"]
    assert both.trail.revision() == 2


def test_events_of_one_subject_are_found_among_many(both: Both) -> None:
    made = [policy(str(number)) for number in range(5)]
    for one in made:
        both.policies.create(one, CREATE, Idempotency())
    assert [event.subject for event in both.trail.events(made[2].id)] == [made[2].id]
    assert [event.subject for event in both.trail.events(limit=2)] == [made[4].id, made[3].id]


def test_revisions_come_back_newest_first_and_only_so_many_are_kept(both: Both) -> None:
    made = policy()
    both.policies.create(made, CREATE, Idempotency())
    assert both.policies.revisions(made.id) == (made,)
    versions = [replace(made, revision=number, priority=number) for number in range(2, REVISIONS_KEPT + 3)]
    for version in versions:
        both.policies.replace(version, UPDATE)
    kept = both.policies.revisions(made.id)
    assert kept == tuple(reversed(versions))[:REVISIONS_KEPT]
    assert both.policies.get(made.id) == kept[0]
    with pytest.raises(NotFoundError, match="no policy 'p-1'"):
        both.policies.revisions("p-1")


def test_a_repeated_change_is_made_once_and_its_key_is_known_before_it_is_asked_again(both: Both) -> None:
    made = policy()
    both.policies.create(made, CREATE, Idempotency())
    key = Idempotency.of("k", actor="me", request=b"same")
    assert both.policies.repeated(key) is None
    assert both.policies.repeated(Idempotency()) is None
    changed = replace(made, revision=2, name="Less horror")
    first = both.policies.replace(changed, UPDATE, key)
    both.policies.replace(replace(changed, revision=3), UPDATE)
    assert both.policies.replace(changed, UPDATE, key) == first == both.policies.repeated(key)
    assert both.trail.revision() == 3
    with pytest.raises(ConflictError, match="used for another request"):
        both.policies.repeated(Idempotency.of("k", actor="me", request=b"other"))


def test_kill_switches_are_kept_by_model_with_their_events_and_come_with_the_snapshot(both: Both) -> None:
    every, one = KillSwitch("", True, NOW, "me", "all of it"), KillSwitch("sasrec", True, NOW, "me", "this one")
    off = replace(every, on=False, at=NOW + 1, reason="fine again")
    set_it = replace(CREATE, action="killswitch.set")
    assert [both.policies.set_kill_switch(switch, set_it) for switch in (every, one, off)] == [1, 2, 3]
    snapshot = both.policies.snapshot()
    assert (snapshot.revision, snapshot.kill_switches) == (3, {"": off, "sasrec": one})
    newest, of_model, first = both.trail.events()
    assert [newest.subject, of_model.subject, first.subject] == [
        "kill-switch/*", "kill-switch/sasrec", "kill-switch/*",
    ]  # fmt: skip
    assert switch_from_json(newest.before_json) == every == switch_from_json(first.after_json)
    assert (switch_from_json(newest.after_json), first.before_json) == (off, "")


def test_a_policy_of_a_release_without_history_begins_its_history_with_what_was_there(redis_url: str) -> None:
    made = policy()
    with connect(redis_url) as client:
        client.hset("recsae:policies", made.id, policy_to_json(made))
        store = RedisPolicyStore(client)
        assert store.revisions(made.id) == (made,)
        changed = replace(made, revision=2, name="Less horror")
        store.replace(changed, UPDATE)
        assert store.revisions(made.id) == (changed, made)


def test_a_kill_switch_that_cannot_be_read_counts_as_on(redis_url: str) -> None:
    with connect(redis_url) as client:
        client.hset("recsae:kill-switches", mapping={"sasrec": "{", "*": '{"on": false}'})
        switches = RedisPolicyStore(client).snapshot().kill_switches
    assert {model: switch.on for model, switch in switches.items()} == {"sasrec": True, "": True}


def test_pages_of_events_meet_without_a_gap_or_a_repetition(both: Both) -> None:
    made = policy()
    both.policies.create(made, CREATE, Idempotency())
    for number in range(2, 12):
        both.policies.create(policy(str(number)), CREATE, Idempotency())
        both.policies.replace(replace(made, revision=number), UPDATE)
    for subject, count in (("", 21), (made.id, 11)):
        everything = both.trail.events(subject)
        assert len(everything) == count
        pages = [both.trail.events(subject, 4)]
        while pages[-1]:
            pages.append(both.trail.events(subject, 4, before_id=pages[-1][-1].id))
        assert [event for page in pages for event in page] == everything
    with pytest.raises(InvalidRequestError, match="'newest' is no id of an audit event"):
        both.trail.events(before_id="newest")


def test_fields_of_a_newer_release_do_not_break_reading() -> None:
    made = policy()
    text = policy_to_json(made).replace('"name"', '"colour": "red", "name"', 1)
    assert policy_from_json(text) == made


def test_a_stored_policy_this_release_cannot_read_is_named_and_the_others_hold(redis_url: str) -> None:
    with connect(redis_url) as client:
        store = RedisPolicyStore(client)
        made, strange = policy("made"), policy("strange")
        for one in (made, strange):
            store.create(one, CREATE, Idempotency())
        text = policy_to_json(strange).replace("OPERATION_KIND_ABLATE", "OPERATION_KIND_BLEND")
        client.hset("recsae:policies", strange.id, text)
        snapshot = store.snapshot()
    assert (snapshot.policies, snapshot.unreadable) == ((made,), (strange.id,))


@pytest.mark.parametrize("round_number", range(5))
def test_acknowledged_policies_and_events_survive_kill_9(round_number: int, redis_server: KillableServer) -> None:
    server = redis_server
    client = connect(server.url, timeout_s=2.0)
    store = RedisPolicyStore(client)
    acknowledged: list[Policy] = []
    enough = threading.Event()

    def write_until_it_dies() -> None:
        while True:
            made = policy(f"policy {len(acknowledged)}")
            try:
                acknowledged.append(store.create(made, CREATE, Idempotency()).policy)
            except UnavailableError:
                return
            if len(acknowledged) >= 50 + 10 * round_number:
                enough.set()

    writer = threading.Thread(target=write_until_it_dies)
    writer.start()
    assert enough.wait(20)
    server.kill()
    writer.join(20)
    server.start()
    snapshot = store.snapshot()
    client.close()
    kept = {one.id: one for one in snapshot.policies}
    assert [one for one in acknowledged if kept.get(one.id) != one] == []
    with connect(server.url) as again:
        told = {event.subject for event in RedisTrail(again).events(limit=100_000)}
    # The write in flight may be there or not, but never by half: policies, events and revision agree.
    assert told == set(kept)
    assert snapshot.revision == len(kept)
    assert len(kept) - len(acknowledged) in (0, 1)
