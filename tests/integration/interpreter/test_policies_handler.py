"""Taking a policy back whatever its revision: two people who do so at once both succeed, and it happens once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from recsae.rpc.request import RequestInfo
from recsae.steering.policies import Operation, OperationKind, PolicyDraft, PolicyState, Window, new_policy
from recsae.steering.policy_store import Idempotency, InMemoryPolicyStore, PolicySnapshot
from recsae.store.artifacts import ArtifactStore
from recsae.store.events import Change
from recsae_interpreter.handlers.policies import PoliciesHandler
from recsae_interpreter.library import Library
from recsae_interpreter.loading import load_triple

NOW = 1_790_000_000.0


class ReadTogether(InMemoryPolicyStore):
    """The first two readers get their snapshots before either can write."""

    def __init__(self) -> None:
        super().__init__()
        self._both_read = threading.Barrier(2)
        self._reads = 0

    def snapshot(self) -> PolicySnapshot:
        with self.trail.lock:
            self._reads += 1
            together = self._reads <= 2
        taken = super().snapshot()
        if together:
            self._both_read.wait(10)
        return taken


def test_two_deletes_at_once_without_a_revision_both_succeed_and_one_is_recorded() -> None:
    store = ReadTogether()
    draft = PolicyDraft("n", "m", (Operation("c-1", OperationKind.ABLATE),), window=Window(end=NOW + 60))
    policy = new_policy(draft, actor="me", now=NOW)
    store.create(policy, Change("me", "policy.create", "why", "r-0", NOW), Idempotency())
    handler = PoliciesHandler(store, store.trail, Library(partial(load_triple, ArtifactStore("memory://"))))
    with ThreadPoolExecutor(2) as pool:
        deletes = [pool.submit(handler.delete, policy.id, 0, "wrong", RequestInfo(f"r-{n}")) for n in (1, 2)]
        written = [one.result(30) for one in deletes]
    assert [one.policy.state for one in written] == [PolicyState.REVERTED] * 2
    assert {one.policy.revision for one in written} == {2}
    assert len([one for one in store.trail.events(policy.id) if one.change.action == "policy.delete"]) == 1
