"""Writes with a replica: acknowledged means on the replica's disk too, and what is not is said, never claimed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from tests.integration.conftest import RedisServer

from recsae.errors import UnavailableError
from recsae.steering.kill_switch import KillSwitch
from recsae.steering.policies import Operation, OperationKind, Policy, PolicyDraft, Window, new_policy
from recsae.steering.policy_store import Idempotency
from recsae.steering.policy_store_redis import RedisPolicyStore
from recsae.store.acknowledging import AcknowledgedWrites
from recsae.store.events import Change, RedisTrail
from recsae.store.redis import connect, durability_warning

NOW = 1_790_000_000.25
CREATE = Change("me", "policy.create", "because", "r-1", NOW)


def policy() -> Policy:
    draft = PolicyDraft("Less", "sasrec", (Operation("c-1", OperationKind.ABLATE),), window=Window(None, NOW + 60))
    return new_policy(draft, actor="me", now=NOW)


@dataclass
class Pair:
    primary: RedisServer
    replica: RedisServer


def until(true: Callable[[], bool]) -> None:
    """Waits for something another process does, which no event of ours tells."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@contextmanager
def running_pair(folder: Path, *options: str) -> Iterator[Pair]:
    folders = [folder / "primary", folder / "replica"]
    for one in folders:
        one.mkdir()
    primary = RedisServer(folders[0], "--repl-diskless-sync-delay", "0", *options)
    try:
        replica = RedisServer(folders[1], "--replicaof", "127.0.0.1", str(primary.port))
        try:
            with redis.Redis(port=primary.port) as client:
                until(lambda: client.info("replication").get("slave0", {}).get("state") == "online")
                # A replica has its first file some time after it has the data.
                until(lambda: client.set("started", 1) and client.wait(1, 1000) == 1)
            with redis.Redis(port=replica.port) as client:
                until(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0)
            yield Pair(primary, replica)
        finally:
            replica.stop()
    finally:
        primary.stop()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running_pair(tmp_path_factory.mktemp("pair")) as started:
        yield started


def test_an_acknowledged_policy_is_on_the_replica_when_the_primary_is_gone_for_good(tmp_path: Path) -> None:
    with running_pair(tmp_path) as pair:
        with connect(pair.primary.url) as client:
            assert durability_warning(client) == ""
            store = RedisPolicyStore(client)
            written = [store.create(policy(), CREATE, Idempotency()).policy for _ in range(20)]
            store.set_kill_switch(KillSwitch("", True, NOW, "me", "x"), CREATE)
        pair.primary.kill()
        pair.replica.kill()
        pair.replica.start()
        with connect(pair.replica.url) as client:
            snapshot = RedisPolicyStore(client).snapshot()
        assert {one.id for one in snapshot.policies} == {one.id for one in written}
        assert (snapshot.revision, snapshot.kill_switches[""].on) == (21, True)


def test_a_write_the_replica_does_not_confirm_is_not_acknowledged_and_its_repetition_confirms_it(pair: Pair) -> None:
    key = Idempotency.of("k", actor="me", request=b"same")
    made = policy()
    with connect(pair.primary.url) as client:
        store = RedisPolicyStore(client)
        store._writes = AcknowledgedWrites(client, timeout_s=0.3)
        pair.replica.pause()
        try:
            with pytest.raises(UnavailableError, match=r"may have happened, but 0 of 1 replicas have it after 0\.3 s"):
                store.create(made, CREATE, key)
            # The same call again finds what the first one stored, and still does not call it durable.
            with pytest.raises(UnavailableError, match="0 of 1 replicas"):
                store.create(made, CREATE, key)
            with pytest.raises(UnavailableError, match="0 of 1 replicas"):
                store.repeated(key)
        finally:
            pair.replica.resume()
        store = RedisPolicyStore(client)
        assert store.create(policy(), CREATE, key).policy == made
        assert [event.subject for event in RedisTrail(client).events(made.id)] == [made.id]


def test_nothing_is_acknowledged_while_fewer_replicas_are_connected_than_must_have_it(redis_url: str) -> None:
    with connect(redis_url) as client:
        assert "0 of the 1 replicas" in durability_warning(client, 1)
        writes = AcknowledgedWrites(client, 1, timeout_s=0.3)
        with pytest.raises(UnavailableError, match="setting it may have happened, but 0 of 1 replicas"):
            writes.run(lambda one: one.set("k", "v"), "setting it")


def test_waiting_for_none_acknowledges_at_once_and_says_what_a_failover_may_lose(pair: Pair) -> None:
    with connect(pair.primary.url) as client:
        pair.replica.pause()
        try:
            assert AcknowledgedWrites(client, 0).run(lambda one: one.set("k", "v"), "setting it") is True
        finally:
            pair.replica.resume()
        assert "a failover may lose what was acknowledged" in durability_warning(client, 0)


def test_a_server_without_waitaof_waits_until_the_replica_received_it_and_is_named(tmp_path: Path) -> None:
    with running_pair(tmp_path, "--rename-command", "WAITAOF", "") as pair, connect(pair.primary.url) as client:
        assert "has no WAITAOF" in durability_warning(client)
        writes = AcknowledgedWrites(client, timeout_s=0.3)
        assert writes.run(lambda one: one.incr("n"), "counting") == 1
        pair.replica.pause()
        try:
            with pytest.raises(UnavailableError, match="0 of 1 replicas"):
                writes.run(lambda one: one.incr("n"), "counting")
        finally:
            pair.replica.resume()


def test_a_server_that_keeps_no_file_still_acknowledges_and_is_named_at_the_start(redis_url: str) -> None:
    with connect(redis_url) as client:
        client.config_set("appendonly", "no")
        try:
            assert AcknowledgedWrites(client).run(lambda one: one.incr("n"), "counting") == 1
            assert "without appendonly" in durability_warning(client)
        finally:
            client.config_set("appendonly", "yes")
