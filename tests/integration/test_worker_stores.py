"""The in-memory stores and those on a real server keep the same contracts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from recsae.errors import ConflictError, NotFoundError
from recsae.pipeline.leases import InMemoryLeaseStore, LeaseStore
from recsae.pipeline.leases_redis import RedisLeaseStore
from recsae.pipeline.run_store import InMemoryRunStore, RunStore, cancel, start_refresh, update
from recsae.pipeline.runs import Run, RunConfig, RunState, Stage, new_run
from recsae.pipeline.runs_redis import RedisRunStore

CONFIG = RunConfig(model="sasrec", dataset_version="0123456789abcdef")


@pytest.fixture
def valkey(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, socket_timeout=10.0) as client:
        yield client


@pytest.fixture(params=["memory", "redis"])
def runs(request: pytest.FixtureRequest) -> RunStore:
    return InMemoryRunStore() if request.param == "memory" else RedisRunStore(request.getfixturevalue("valkey"))


@pytest.fixture(params=["memory", "redis"])
def leases(request: pytest.FixtureRequest) -> LeaseStore:
    return InMemoryLeaseStore() if request.param == "memory" else RedisLeaseStore(request.getfixturevalue("valkey"))


def test_a_run_comes_back_as_it_was_stored(runs: RunStore) -> None:
    run = start_refresh(runs, CONFIG)
    stored = runs.replace(replace(run, scores={"a": 0.5}).with_stage(Stage("train", RunState.RUNNING, 0.25)))
    assert runs.get(run.id) == stored
    assert stored.revision == 2


def test_a_write_from_an_old_revision_is_refused(runs: RunStore) -> None:
    run = start_refresh(runs, CONFIG)
    runs.replace(replace(run, reason="first"))
    with pytest.raises(ConflictError, match="at revision 2, not 1"):
        runs.replace(replace(run, reason="second"))
    assert runs.get(run.id).reason == "first"


def test_an_unknown_run_is_not_found(runs: RunStore) -> None:
    with pytest.raises(NotFoundError):
        runs.get("r-1")
    with pytest.raises(NotFoundError):
        runs.replace(new_run(CONFIG, 0.0))


def test_a_repeated_key_makes_one_run_even_from_many_callers(runs: RunStore) -> None:
    made: list[Run] = []
    threads = [threading.Thread(target=lambda: made.append(start_refresh(runs, CONFIG, "key"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.id for run in made}) == 1
    assert len(runs.list()) == 1


def test_the_same_id_twice_is_a_conflict(runs: RunStore) -> None:
    run = new_run(CONFIG, 0.0)
    runs.create(run)
    with pytest.raises(ConflictError, match="exists already"):
        runs.create(run)


def test_concurrent_updates_all_land(runs: RunStore) -> None:
    run = start_refresh(runs, CONFIG)

    def count() -> None:
        for _ in range(10):
            update(runs, run.id, lambda r: replace(r, scores={"n": r.scores.get("n", 0.0) + 1}))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs.get(run.id).scores["n"] == 40


def test_lists_are_newest_first_by_model_and_by_activity(runs: RunStore) -> None:
    old = start_refresh(runs, CONFIG, clock=lambda: 1.0)
    new = start_refresh(runs, CONFIG, clock=lambda: 2.0)
    other = start_refresh(runs, replace(CONFIG, model="other"), clock=lambda: 3.0)
    cancel(runs, old.id, "not needed")
    assert [run.id for run in runs.list()] == [other.id, new.id, old.id]
    assert [run.id for run in runs.list("sasrec")] == [new.id, old.id]
    assert [run.id for run in runs.list("sasrec", active_only=True)] == [new.id]
    assert [run.id for run in runs.list(limit=2)] == [other.id, new.id]


def test_a_lease_has_one_owner_until_it_is_released(leases: LeaseStore) -> None:
    assert leases.acquire("x", "a", 5)
    assert not leases.acquire("x", "b", 5)
    assert not leases.renew("x", "b", 5)
    leases.release("x", "b")
    assert leases.holder("x") == "a"
    assert leases.renew("x", "a", 5)
    leases.release("x", "a")
    assert leases.holder("x") == ""
    assert leases.acquire("x", "b", 5)


def test_a_lease_of_a_dead_owner_goes_away_by_itself(leases: LeaseStore) -> None:
    assert leases.acquire("x", "dead", 0.05)
    deadline = time.monotonic() + 5
    while not leases.acquire("x", "next", 5):
        assert time.monotonic() < deadline
    assert leases.holder("x") == "next"


def test_ended_runs_are_forgotten_beyond_the_bound_and_active_ones_are_not(
    valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsae.pipeline.runs_redis._MAX_RUNS", 3)
    runs = RedisRunStore(valkey)
    made = [start_refresh(runs, CONFIG, clock=lambda at=at: float(at)) for at in range(3)]  # type: ignore[misc]
    cancel(runs, made[1].id, "no")
    newest = start_refresh(runs, CONFIG, clock=lambda: 9.0)
    start_refresh(runs, CONFIG, clock=lambda: 10.0)
    kept = {run.id for run in runs.list()}
    assert made[1].id not in kept
    assert {made[0].id, made[2].id, newest.id} <= kept
