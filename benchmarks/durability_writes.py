"""Writers that keep a ledger of what they were told, and the comparison of that ledger with what a server holds.

Every call carries a token of its own as request id, so its audit event can be recognised: an acknowledged one must be
there exactly once, a refused one never, and one whose answer was lost once or not at all. Not here: the server and its
deaths (`benchmarks.durability`).
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import redis

from recsae.errors import ConflictError, UnavailableError
from recsae.steering.kill_switch import KillSwitch
from recsae.steering.policies import Operation, OperationKind, Policy, PolicyDraft, PolicyState, Window, new_policy
from recsae.steering.policy_json import policy_from_json
from recsae.steering.policy_store import REVISIONS_KEPT, Idempotency
from recsae.steering.policy_store_redis import RedisPolicyStore
from recsae.store.events import AuditEvent, Change, RedisTrail

# A writer that holds many policies changes one of its newest; the others stay as they are and must be found so.
_IN_HAND = 20
_STATES = (PolicyState.LIVE, PolicyState.PAUSED, PolicyState.SHADOW)


@dataclass
class Ledger:
    """Tokens by what their callers were told; `policies` are the newest acknowledged versions by id."""

    acknowledged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    unanswered: set[str] = field(default_factory=set)
    policies: dict[str, Policy] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def told(self, token: str, policy: Policy | None) -> None:
        """A call was acknowledged."""
        with self.lock:
            self.unanswered.discard(token)
            self.acknowledged.add(token)
            if policy is not None:
                known = self.policies.get(policy.id)
                if known is None or known.revision < policy.revision:
                    self.policies[policy.id] = policy

    def declined(self, token: str) -> None:
        """A call was refused."""
        with self.lock:
            self.unanswered.discard(token)
            self.refused.add(token)


@dataclass(frozen=True)
class Found:
    """What is wrong with what a server holds: calls acknowledged and not there, there twice, and records that disagree.

    `unanswered_stored` of the calls whose answer was lost did happen, which is fine.
    """

    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    torn: tuple[str, ...]
    unanswered_stored: int

    @property
    def fine(self) -> bool:
        """True when nothing is wrong."""
        return not (self.lost or self.doubled or self.torn)


class Writer:
    """One operator: makes, changes and moves policies of its own, and one that all writers share."""

    def __init__(self, client: redis.Redis, ledger: Ledger, shared: Policy, seed: int) -> None:
        """`shared` is stored already."""
        self._store = RedisPolicyStore(client)
        self._ledger = ledger
        self._shared = shared
        self._own: list[Policy] = []
        self._random = random.Random(seed)
        self._pending: Callable[[], None] | None = None
        self.interrupted = 0
        """Times the answer to a write did not come."""

    def run(self) -> None:
        """Writes until the server no longer answers; first repeats the call whose answer was lost, with its key."""
        try:
            if self._pending is not None:
                self._pending()
            while True:
                self.step()
        except UnavailableError:
            return

    def _ask(self, token: str) -> None:
        with self._ledger.lock:
            self._ledger.unanswered.add(token)
        self.interrupted += 1

    def step(self) -> None:
        """One write; UnavailableError when the server does not answer."""
        dice = self._random.random()
        if dice < 0.3 or not self._own:
            self._write(_policy(), create=True)
        elif dice < 0.6:
            self._write(self._changed(priority=self._random.randint(-1000, 1000)))
        elif dice < 0.8:
            self._write(self._changed(state=self._random.choice(_STATES)))
        elif dice < 0.95:
            stored = self._store.get(self._shared.id)
            self._write(replace(stored, revision=stored.revision + 1, name=uuid.uuid4().hex))
        else:
            self._switch()

    def _changed(self, **changes: int | PolicyState) -> Policy:
        policy = self._random.choice(self._own[-_IN_HAND:])
        return replace(policy, revision=policy.revision + 1, **changes)  # type: ignore[arg-type]

    def _write(self, policy: Policy, *, create: bool = False) -> None:
        token = uuid.uuid4().hex
        change = Change("writer", "policy.create" if create else "policy.update", "a test", token, time.time())
        key = Idempotency.of(token, actor="writer", request=token.encode())

        def call() -> None:
            self._ask(token)
            try:
                write = self._store.create if create else self._store.replace
                stored = write(policy, change, key).policy
            except ConflictError:  # somebody else changed the shared one
                self._ledger.declined(token)
            else:
                self._ledger.told(token, stored)
                if stored.id != self._shared.id:
                    self._own = [one for one in self._own if one.id != stored.id] + [stored]
            self._pending = None
            self.interrupted -= 1

        self._pending = call
        call()

    def _switch(self) -> None:
        """A call without a key: it cannot be repeated, so its lost answer stays one."""
        token = uuid.uuid4().hex
        self._ask(token)
        switch = KillSwitch(
            f"m-{self._random.randint(0, 3)}", self._random.random() < 0.5, time.time(), "writer", token
        )
        self._store.set_kill_switch(switch, Change("writer", "killswitch.set", "a test", token, time.time()))
        self._ledger.told(token, None)
        self.interrupted -= 1


def shared_policy(client: redis.Redis, ledger: Ledger) -> Policy:
    """Stores the policy all writers share."""
    policy, token = _policy(), uuid.uuid4().hex
    change = Change("writer", "policy.create", "a test", token, time.time())
    stored = RedisPolicyStore(client).create(policy, change, Idempotency()).policy
    ledger.told(token, stored)
    return stored


def compared(client: redis.Redis, ledger: Ledger) -> Found:
    """Reads everything the server holds and compares it with the ledger."""
    trail, store = RedisTrail(client), RedisPolicyStore(client)
    events = list(reversed(trail.events(limit=10**9)))
    times = Counter(event.change.request_id for event in events)
    known = ledger.acknowledged | ledger.unanswered
    lost = [token for token in ledger.acknowledged if not times[token]]
    doubled = [token for token, count in times.items() if count > 1]
    torn = [f"an event nobody asked for: {token}" for token in times if token not in known]
    if [event.revision for event in events] != list(range(1, trail.revision() + 1)):
        torn.append("the revisions of the events are not 1 to the counter")
    snapshot = store.snapshot()
    by_subject: dict[str, list[AuditEvent]] = defaultdict(list)
    for event in events:
        by_subject[event.subject].append(event)
    told = {subject: told for subject, told in by_subject.items() if not subject.startswith("kill-switch/")}
    if set(told) != {policy.id for policy in snapshot.policies}:
        torn.append("policies and events name different policies")
    for policy in snapshot.policies:
        torn += _disagreements(policy, told.get(policy.id, []), store.revisions(policy.id))
        acknowledged = ledger.policies.get(policy.id)
        if acknowledged is not None and policy.revision < acknowledged.revision:
            lost.append(f"{policy.id} revision {acknowledged.revision}")
    lost += [one for one in ledger.policies if one not in told]
    stored = sum(times[token] > 0 for token in ledger.unanswered)
    return Found(tuple(lost), tuple(doubled), tuple(torn), stored)


def _disagreements(policy: Policy, events: list[AuditEvent], revisions: tuple[Policy, ...]) -> list[str]:
    """Where a policy, its events (oldest first) and its history (newest first) do not say the same."""
    said = [policy_from_json(event.after_json) for event in events]
    if [one.revision for one in said] != list(range(1, policy.revision + 1)):
        return [f"{policy.id} at revision {policy.revision} has events of {[one.revision for one in said]}"]
    wrong = []
    if said[-1] != policy:
        wrong.append(f"{policy.id} is not what its newest event says")
    if tuple(reversed(said))[:REVISIONS_KEPT] != revisions:
        wrong.append(f"the history of {policy.id} is not what its events say")
    if [event.before_json for event in events] != ["", *(event.after_json for event in events[:-1])]:
        wrong.append(f"an event of {policy.id} does not begin where the one before ended")
    return wrong


def _policy() -> Policy:
    now = time.time()
    operations = (Operation("c-1", OperationKind.ADD, 0.5), Operation("c-2", OperationKind.ABLATE))
    return new_policy(PolicyDraft("n", "m", operations, window=Window(now, now + 86_400)), actor="writer", now=now)
