"""Backup and restore: the same state again bit for bit, in one step or not at all, and noticed by who watches."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.integration.conftest import RedisServer

from recsae.errors import ConflictError, CorruptArtifactError, FailedPreconditionError
from recsae.pipeline.runs import RunConfig, RunState, new_run
from recsae.pipeline.runs_redis import RedisRunStore
from recsae.pipeline.triples import Triple
from recsae.steering.kill_switch import KillSwitch
from recsae.steering.policies import Operation, OperationKind, Policy, PolicyDraft, Scope, Window, new_policy
from recsae.steering.policy_store import Idempotency, PolicySnapshot
from recsae.steering.policy_store_redis import RedisPolicyStore
from recsae.store.artifacts import ArtifactStore
from recsae.store.audit_archive import AuditArchive
from recsae.store.audit_archiving import Archiver, Kept
from recsae.store.backup import back_up
from recsae.store.channels_redis import RedisChannelStore
from recsae.store.events import AuditEvent, Change, RedisTrail
from recsae.store.label_edits import LabelEdit
from recsae.store.label_edits_redis import RedisLabelEditStore
from recsae.store.redis import connect
from recsae.store.restore import restore, state_revision
from recsae.store.state_file import read_manifest
from recsae.store.watching import StateWatcher

NOW = 1_790_000_000.25
CHANGE = Change("me", "some.change", "because", "r-1", NOW)
KEY = Idempotency.of("k", actor="me", request=b"same")
TRIPLES = [Triple("a" * 16, "b" * 16, "c" * 16), Triple("a" * 16, "d" * 16, "e" * 16)]


def policy(name: str = "ü") -> Policy:
    scope = Scope(("u-1", "ü-2"), None, 12.5)
    draft = PolicyDraft(name, "sasrec", (Operation("c-1", OperationKind.ADD, 0.1),), scope, Window(None, NOW + 60))
    return new_policy(draft, actor="me", now=NOW)


def fill(client: redis.Redis, artifacts: ArtifactStore) -> Policy:
    """One of everything; the policy that was changed."""
    policies = RedisPolicyStore(client)
    made = policies.create(policy(), CHANGE, KEY).policy
    for number in range(2, 13):
        policies.replace(replace(made, revision=number, priority=number), CHANGE)
    policies.set_kill_switch(KillSwitch("sasrec", True, NOW, "me", "x"), CHANGE)
    for triple in TRIPLES:
        RedisChannelStore(client).point("sasrec", "production", triple, CHANGE)
    edit = LabelEdit("sasrec", "c-1", "Ghosts", "", "me", "because", NOW, "c" * 16)
    RedisLabelEditStore(client).write(edit, CHANGE, expected_revision=None)
    runs = RedisRunStore(client)
    runs.create(new_run(RunConfig(model="sasrec", dataset_version="f" * 16), now=NOW), "run-key")
    Archiver(client, artifacts, Kept(newest=5, batch=4)).run(NOW)
    client.set("recsae:lease:x", "somebody")
    return made


def everything(client: redis.Redis, artifacts: ArtifactStore) -> dict[str, Any]:
    """What the stores say there is, and the trail to its beginning."""
    snapshot: PolicySnapshot = RedisPolicyStore(client).snapshot()
    ids = [one.id for one in snapshot.policies]
    trail = RedisTrail(client, AuditArchive(client, artifacts))
    return {
        "policies": snapshot.policies,
        "kill switches": snapshot.kill_switches,
        "revisions": [RedisPolicyStore(client).revisions(one) for one in ids],
        "channels": RedisChannelStore(client).read("sasrec"),
        "edits": RedisLabelEditStore(client).snapshot(),
        "runs": RedisRunStore(client).list(limit=10),
        "active": RedisRunStore(client).list(limit=10, active_only=True),
        "events": [event for event in trail.events(limit=1000) if event.change.action != "state.restore"],
        "events of one": [trail.events(one, 1000) for one in ids],
        "events of a channel": trail.events("sasrec/production"),
    }


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"))


def test_a_restored_server_holds_the_same_state_bit_for_bit(
    redis_url: str, redis_server: RedisServer, artifacts: ArtifactStore, tmp_path: Path
) -> None:
    file = tmp_path / "state.gz"
    with connect(redis_url) as old, connect(redis_server.url) as new:
        made = fill(old, artifacts)
        manifest = back_up(old, file)
        assert (manifest.revision, manifest.policies, manifest.events) == (16, 1, old.xlen("recsae:events"))
        assert file.stat().st_mode & 0o077 == 0, "it names users"
        done = restore(new, file, artifacts, actor="me", reason="moved")
        assert everything(new, artifacts) == everything(old, artifacts)
        # Every key is the same byte for byte, but for the revision and the event that says what happened.
        for key in old.scan_iter("recsae:*"):
            if key not in ("recsae:revision", "recsae:events") and not key.startswith("recsae:lease:"):
                assert contents(new, key) == contents(old, key), key
                assert abs(new.pttl(key) - old.pttl(key)) < 5_000, key
        # A call repeated after the restore finds what it stored; a write finds the revision it expects.
        policies = RedisPolicyStore(new)
        assert policies.create(policy("another"), CHANGE, KEY).policy == made
        assert policies.replace(replace(made, revision=13), CHANGE).plan_revision == done.revision + 1
        newest = RedisTrail(new).events("state")[0]
        assert (newest.change.actor, newest.change.reason, newest.revision) == ("me", "moved", done.revision)
        assert manifest.sha256 in newest.after_json
        assert new.get("recsae:lease:x") is None
        assert list(new.scan_iter("recsae-restore:*")) == []


def contents(client: Any, key: str) -> Any:
    match client.type(key):
        case "string":
            return client.get(key)
        case "hash":
            return client.hgetall(key)
        case "list":
            return client.lrange(key, 0, -1)
        case "set":
            return client.smembers(key)
        case "zset":
            return client.zrange(key, 0, -1, withscores=True)
    raise AssertionError(key)


def test_what_the_backup_points_at_is_named_and_what_is_missing_too(
    redis_url: str, redis_server: RedisServer, artifacts: ArtifactStore, tmp_path: Path
) -> None:
    with connect(redis_url) as old, connect(redis_server.url) as new:
        fill(old, artifacts)
        manifest = back_up(old, tmp_path / "state.gz")
        archives = [one.version for one in AuditArchive(old, artifacts).archives()]
        assert manifest.artifacts == {
            "audit": sorted(archives),
            "dictionary": [triple.dictionary_version for triple in TRIPLES],
            "model": ["a" * 16],
            "sae": [triple.sae_version for triple in TRIPLES],
        }
        done = restore(new, tmp_path / "state.gz", artifacts, actor="me", reason="moved")
        assert done.missing == {kind: wanted for kind, wanted in manifest.artifacts.items() if kind != "audit"}


def test_a_state_is_only_replaced_when_that_is_asked_and_nobody_wrote_meanwhile(
    redis_url: str, artifacts: ArtifactStore, tmp_path: Path
) -> None:
    file = tmp_path / "state.gz"
    with connect(redis_url) as client:
        made = fill(client, artifacts)
        wanted = everything(client, artifacts)
        back_up(client, file)
        RedisPolicyStore(client).replace(replace(made, revision=13, name="later"), CHANGE)
        later = everything(client, artifacts)
        with pytest.raises(FailedPreconditionError, match="not empty"):
            restore(client, file, artifacts, actor="me", reason="x")
        with pytest.raises(ConflictError, match="moved on to revision 17 while it was to be replaced at 16"):
            restore(client, file, artifacts, actor="me", reason="x", replaced=16)
        assert everything(client, artifacts) == later
        assert list(client.scan_iter("recsae-restore:*")) == []
        done = restore(client, file, artifacts, actor="me", reason="x", replaced=17)
        assert everything(client, artifacts) == wanted
        # Again: the revision never repeats.
        again = restore(client, file, artifacts, actor="me", reason="x", replaced=done.revision)
        assert again.revision > done.revision > 17


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda lines: lines[:-1], "no manifest"),
        (lambda lines: lines[:3] + lines[4:], "checksum"),
        (lambda lines: [line.replace(b"Ghosts", b"Ghouls") for line in lines], "checksum"),
        (lambda lines: lines + lines[1:2], "goes on after"),
        (lambda lines: [b"{}\n", *lines[1:]], "no backup of RecSAE"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b"created_at", b"made_at")], "manifest of another form"),
        (lambda lines: [lines[0], b"7\n", *lines[1:]], "cannot be read"),
        (lambda lines: [lines[0].replace(b": 1", b": 2"), *lines[1:]], "schema 2"),
    ],
)
def test_a_damaged_file_is_refused_before_anything_is_written(
    redis_url: str,
    artifacts: ArtifactStore,
    tmp_path: Path,
    damage: Callable[[list[bytes]], list[bytes]],
    words: str,
) -> None:
    file = tmp_path / "state.gz"
    with connect(redis_url) as client:
        fill(client, artifacts)
        back_up(client, file)
        file.write_bytes(gzip.compress(b"".join(damage(gzip.decompress(file.read_bytes()).splitlines(keepends=True)))))
        client.flushall()
        with pytest.raises(CorruptArtifactError, match=words):
            restore(client, file, artifacts, actor="me", reason="x")
        assert client.dbsize() == 0


def test_a_file_cut_short_is_refused(redis_url: str, artifacts: ArtifactStore, tmp_path: Path) -> None:
    file = tmp_path / "state.gz"
    with connect(redis_url) as client:
        fill(client, artifacts)
        back_up(client, file)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CorruptArtifactError, match="cannot be read to its end"):
        read_manifest(file)


def test_a_restore_cut_short_changes_nothing_and_can_be_done_again(
    redis_server: RedisServer, artifacts: ArtifactStore, tmp_path: Path
) -> None:
    with connect(redis_server.url) as client:
        fill(client, artifacts)
        wanted = everything(client, artifacts)
        back_up(client, tmp_path / "state.gz")
        client.flushall()
        # What a restore killed before its last step leaves: a part of the copy beside the state.
        client.set("recsae-restore:1700000000:abcd:recsae:unfinished", "x")
        redis_server.kill()
        redis_server.start()
        assert state_revision(client) is None
        restore(client, tmp_path / "state.gz", artifacts, actor="me", reason="x")
        assert everything(client, artifacts) == wanted
        assert client.exists("recsae:unfinished") == 0
        assert list(client.scan_iter("recsae-restore:*")) == []


def test_of_two_restores_at_once_one_is_put_into_place_whole(
    redis_url: str, artifacts: ArtifactStore, tmp_path: Path
) -> None:
    barrier = threading.Barrier(2)
    done: list[str] = []

    def run() -> None:
        with connect(redis_url) as own:
            barrier.wait()
            try:
                restore(own, tmp_path / "state.gz", artifacts, actor="me", reason="x")
                done.append("restored")
            except (ConflictError, FailedPreconditionError):
                done.append("refused")

    with connect(redis_url) as client:
        fill(client, artifacts)
        wanted = everything(client, artifacts)
        back_up(client, tmp_path / "state.gz")
        for _ in range(5):
            client.flushall()
            threads = [threading.Thread(target=run) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(done[-2:]) == ["refused", "restored"]
            assert everything(client, artifacts) == wanted


def test_a_watcher_of_the_replaced_state_takes_the_restored_one_for_newer(
    redis_url: str, artifacts: ArtifactStore, tmp_path: Path
) -> None:
    with connect(redis_url) as client:
        fill(client, artifacts)
        back_up(client, tmp_path / "state.gz")
        policies = RedisPolicyStore(client)
        later = policies.create(policy("later"), CHANGE, Idempotency())
        seen: list[PolicySnapshot] = []
        changed = threading.Semaphore(0)

        def look() -> None:
            with connect(redis_url) as own:
                seen.append(RedisPolicyStore(own).snapshot())
            changed.release()

        watcher = StateWatcher(redis_url, look, poll_s=0.2).start()
        try:
            assert changed.acquire(timeout=5)
            assert later.policy in seen[-1].policies
            restore(client, tmp_path / "state.gz", artifacts, actor="me", reason="x", replaced=later.plan_revision)
            assert changed.acquire(timeout=5)
            while later.policy in seen[-1].policies:
                assert changed.acquire(timeout=5)
            # And it goes on noticing.
            while changed.acquire(blocking=False):
                pass
            policies.create(policy("newest"), CHANGE, Idempotency())
            assert changed.acquire(timeout=5)
        finally:
            watcher.close()
        revisions = [snapshot.revision for snapshot in seen]
        assert revisions == sorted(revisions)


def test_a_backup_taken_while_policies_are_written_is_of_one_revision(
    redis_url: str, redis_server: RedisServer, artifacts: ArtifactStore, tmp_path: Path
) -> None:
    stop = threading.Event()

    def write() -> None:
        with connect(redis_url) as own:
            store = RedisPolicyStore(own)
            while not stop.is_set():
                made = store.create(policy(), CHANGE, Idempotency()).policy
                store.replace(replace(made, revision=2), CHANGE)

    with connect(redis_url) as old, connect(redis_server.url) as new:
        fill(old, artifacts)
        writers = [threading.Thread(target=write) for _ in range(2)]
        for writer in writers:
            writer.start()
        manifests = [back_up(old, tmp_path / f"{number}.gz") for number in range(5)]
        stop.set()
        for writer in writers:
            writer.join()
        for number, manifest in enumerate(manifests):
            new.flushall()
            restore(new, tmp_path / f"{number}.gz", artifacts, actor="me", reason="x")
            trail = RedisTrail(new, AuditArchive(new, artifacts))
            events: list[AuditEvent] = trail.events(limit=10_000)[1:]
            assert [event.revision for event in reversed(events)] == list(range(1, manifest.revision + 1))
            for one in RedisPolicyStore(new).snapshot().policies[1:]:
                assert len(trail.events(one.id)) == one.revision == len(RedisPolicyStore(new).revisions(one.id))
    assert manifests[0].revision < manifests[-1].revision


def test_run_records_come_back_and_go_on(redis_url: str, artifacts: ArtifactStore, tmp_path: Path) -> None:
    with connect(redis_url) as client:
        fill(client, artifacts)
        back_up(client, tmp_path / "state.gz")
        client.flushall()
        restore(client, tmp_path / "state.gz", artifacts, actor="me", reason="x")
        runs = RedisRunStore(client)
        (run,) = runs.list()
        assert runs.replace(replace(run, state=RunState.CANCELLED)).revision == run.revision + 1
        assert runs.create(new_run(run.config, now=NOW + 1), "run-key").id == run.id
