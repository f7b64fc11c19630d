"""Panes and drift records on a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import redis

from recsae.drift.counters import ConceptCounters, Series
from recsae.drift.panes import MAX_CONTRIBUTIONS, PANE_S, RETENTION_S, InMemoryPaneStore, PaneStore
from recsae.drift.panes_redis import RedisPaneStore
from recsae.drift.record import ConceptShift, DriftRecord, RedisDriftRecords
from recsae.drift.states import DriftState

SERIES = Series("m", "a" * 16)


@pytest.fixture
def valkey(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, socket_timeout=10.0) as client:
        yield client


@pytest.fixture(params=["memory", "redis"])
def panes(request: pytest.FixtureRequest) -> PaneStore:
    return InMemoryPaneStore() if request.param == "memory" else RedisPaneStore(request.getfixturevalue("valkey"))


def counted(rows: int, latent: int = 0) -> ConceptCounters:
    counters = ConceptCounters(8)
    x = np.ones((rows, 2), np.float32)
    indices = np.full((rows, 1), latent, np.int32)
    counters.add(indices, np.ones((rows, 1), np.float32), x, x * 0, mean=x[0] * 2, at=5.0)
    return counters


def test_contributions_of_replicas_add_up_exactly(panes: PaneStore) -> None:
    def replica(name: int) -> None:
        for number in range(5):
            panes.add(SERIES, counted(3, latent=name), 1.0, f"{name}-{number}")

    threads = [threading.Thread(target=replica, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (pane,) = panes.read(SERIES, 0, PANE_S)
    assert pane.counters.n == 60
    assert pane.counters.fired.tolist() == [15, 15, 15, 15, 0, 0, 0, 0]
    assert pane.counters.fvu == pytest.approx(1.0)


def test_a_repeated_contribution_counts_once(panes: PaneStore) -> None:
    for _ in range(3):
        assert panes.add(SERIES, counted(3), 1.0, "same")
    assert panes.read(SERIES, 0, PANE_S)[0].counters.n == 3


def test_panes_are_read_by_time_and_by_series(panes: PaneStore) -> None:
    steered = Series("m", "a" * 16, "", True)
    for start in (0, PANE_S, 2 * PANE_S):
        panes.add(SERIES, counted(1), start + 1.0, "r")
    panes.add(steered, counted(5), 1.0, "r")
    assert [pane.start_s for pane in panes.read(SERIES, PANE_S, 2 * PANE_S + 1)] == [PANE_S, 2 * PANE_S]
    assert panes.series("m") == [SERIES, steered]
    assert panes.series("other") == []


def test_a_full_pane_refuses_more(panes: PaneStore) -> None:
    one = counted(1)
    taken = [panes.add(SERIES, one, 0.0, str(number)) for number in range(MAX_CONTRIBUTIONS + 3)]
    assert taken.count(True) == MAX_CONTRIBUTIONS
    assert panes.add(SERIES, one, 0.0, "0"), "one that is in already is no new one"


def test_every_key_of_a_pane_expires(valkey: redis.Redis) -> None:
    RedisPaneStore(valkey).add(SERIES, counted(1), 0.0, "r")
    left = [valkey.ttl(key) for key in valkey.scan_iter("recsae:drift*")]
    assert len(left) == 3
    assert all(0 < seconds <= RETENTION_S for seconds in left)


def test_a_record_comes_back_equal_and_by_model(valkey: redis.Redis) -> None:
    records = RedisDriftRecords(valkey)
    shift = ConceptShift("c-1", "Horror", 3, 0.1, 0.3, 1.58, None, 0.02, True)
    record = DriftRecord(
        DriftState.DRIFTED, "m", "a" * 16, "d" * 16, 20.0, 10.0, 500, 900, 0.1, None, 0.05, 0.5, 1, 7, 0, (shift,)
    )
    records.write(record)
    records.write(record)
    assert records.read_all() == [record]
