"""Channels: the same contract for the in-memory and the Redis store, and compare-and-set under real contention."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import redis

from recsae.errors import ConflictError, FailedPreconditionError, InvalidRequestError, UnavailableError
from recsae.pipeline.triples import Triple
from recsae.store.channels import (
    CANDIDATE,
    PRODUCTION,
    SERVED_VERSIONS,
    Channel,
    ChannelStore,
    InMemoryChannelStore,
)
from recsae.store.channels_redis import RedisChannelStore
from recsae.store.events import AuditTrail, Change, RedisTrail
from recsae.store.redis import connect, durability_warning
from recsae.store.watching import StateWatcher

AT = 1_790_000_000.123456


def triple(number: int, model: int = 0) -> Triple:
    return Triple(f"{model:016x}", f"{number:016x}", f"{number + 1000:016x}")


def change(action: str = "channel.promote") -> Change:
    return Change("me", action, "because", "r-1", AT)


@dataclass
class Both:
    channels: ChannelStore
    trail: AuditTrail


@pytest.fixture(params=["memory", "redis"])
def both(request: pytest.FixtureRequest) -> Iterator[Both]:
    if request.param == "memory":
        store = InMemoryChannelStore()
        yield Both(store, store.trail)
    else:
        with connect(request.getfixturevalue("redis_url")) as client:
            yield Both(RedisChannelStore(client), RedisTrail(client))


def test_a_model_nobody_promoted_anything_for_points_nowhere(both: Both) -> None:
    read = both.channels.read("sasrec")
    assert (read.channels, read.serving) == ({}, {})
    assert read.channel(PRODUCTION) == Channel(PRODUCTION)
    assert both.channels.models() == []


def test_pointing_moves_the_channel_and_writes_one_event(both: Both) -> None:
    both.channels.point("sasrec", CANDIDATE, triple(1), change("channel.candidate"))
    promoted = both.channels.point("sasrec", PRODUCTION, triple(1), change(), expected_revision=0)
    assert promoted == Channel(PRODUCTION, triple(1), 1, AT)
    read = both.channels.read("sasrec")
    assert read.channels == {CANDIDATE: Channel(CANDIDATE, triple(1), 1, AT), PRODUCTION: promoted}
    assert read.serving == {triple(1).model_version: triple(1)}
    assert both.channels.models() == ["sasrec"]
    newest, older = both.trail.events()
    assert (newest.subject, newest.change, newest.before_json, newest.revision) == (
        "sasrec/production",
        change(),
        "",
        2,
    )
    assert triple(1).sae_version in newest.after_json
    assert older.subject == "sasrec/candidate"
    assert both.trail.revision() == 2


def test_pointing_where_it_points_already_changes_nothing(both: Both) -> None:
    first = both.channels.point("sasrec", PRODUCTION, triple(1), change())
    again = both.channels.point("sasrec", PRODUCTION, triple(1), change(), expected_revision=0)
    assert again == first
    assert both.trail.revision() == 1


def test_a_compare_and_set_from_an_old_revision_changes_nothing(both: Both) -> None:
    both.channels.point("sasrec", PRODUCTION, triple(1), change())
    with pytest.raises(ConflictError, match="at revision 1, not 0"):
        both.channels.point("sasrec", PRODUCTION, triple(2), change(), expected_revision=0)
    assert both.channels.read("sasrec").channel(PRODUCTION).triple == triple(1)
    assert both.trail.revision() == 1


def test_of_many_promotions_from_one_revision_exactly_one_wins(both: Both) -> None:
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def promote(number: int) -> None:
        barrier.wait()
        try:
            both.channels.point("sasrec", PRODUCTION, triple(number), change(), expected_revision=0)
            outcomes.append("won")
        except ConflictError:
            outcomes.append("lost")

    threads = [threading.Thread(target=promote, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 7 + ["won"]
    assert both.trail.revision() == 1


def test_rollback_walks_back_through_what_production_was(both: Both) -> None:
    for number in (1, 2, 3):
        both.channels.point("sasrec", PRODUCTION, triple(number), change())
    assert both.channels.roll_back("sasrec", change("channel.rollback")).triple == triple(2)
    back = both.channels.roll_back("sasrec", change("channel.rollback"))
    assert (back.triple, back.revision) == (triple(1), 5)
    assert both.channels.read("sasrec").serving == {triple(1).model_version: triple(1)}
    with pytest.raises(FailedPreconditionError, match="never anything else"):
        both.channels.roll_back("sasrec", change("channel.rollback"))
    assert both.trail.events(limit=1)[0].change.action == "channel.rollback"


def test_a_new_model_version_is_served_beside_the_old_one_and_the_oldest_drains(both: Both) -> None:
    for model in range(SERVED_VERSIONS + 1):
        both.channels.point("sasrec", PRODUCTION, triple(model, model), change())
    served = both.channels.read("sasrec").serving
    assert served == {triple(n, n).model_version: triple(n, n) for n in range(1, SERVED_VERSIONS + 1)}


def test_another_sae_for_a_served_model_version_replaces_its_triple(both: Both) -> None:
    both.channels.point("sasrec", PRODUCTION, triple(1, model=7), change())
    both.channels.point("sasrec", PRODUCTION, triple(2, model=8), change())
    both.channels.point("sasrec", PRODUCTION, triple(3, model=7), change())
    assert both.channels.read("sasrec").serving == {
        triple(3, model=7).model_version: triple(3, model=7),
        triple(2, model=8).model_version: triple(2, model=8),
    }


def test_a_triple_that_is_not_whole_is_refused(both: Both) -> None:
    with pytest.raises(InvalidRequestError, match="no dictionary_version"):
        both.channels.point("sasrec", PRODUCTION, Triple("a" * 16, "b" * 16), change())
    with pytest.raises(InvalidRequestError, match="no channel 'staging'"):
        both.channels.point("sasrec", "staging", triple(1), change())


def test_a_server_that_does_not_answer_is_unavailable_with_a_sentence() -> None:
    with pytest.raises(UnavailableError, match="while reading the channels of sasrec"):
        RedisChannelStore(connect("redis://127.0.0.1:1/0")).read("sasrec")


def test_a_server_without_durable_writes_is_named(redis_url: str) -> None:
    client = connect(redis_url)
    before = client.config_get("append*")
    try:
        for setting, value, words in (
            ("appendonly", "yes", ""),
            ("appendfsync", "everysec", "may lose the last second"),
            ("appendonly", "no", "without appendonly"),
        ):
            client.config_set(setting, value)
            assert words in durability_warning(client)
        client.config_set("appendonly", "yes")
        client.config_set("appendfsync", "always")
        assert durability_warning(client) == ""
    finally:
        for setting in ("appendfsync", "appendonly"):
            client.config_set(setting, str(before[setting]))
        client.close()


def test_a_watcher_reports_the_start_and_every_change(valkey: redis.Redis, redis_url: str) -> None:
    calls = threading.Semaphore(0)
    watcher = StateWatcher(redis_url, lambda: calls.release(), poll_s=0.5).start()
    client = connect(redis_url)
    try:
        assert calls.acquire(timeout=5)
        store: ChannelStore = RedisChannelStore(client)
        for number in (1, 2):
            store.point("sasrec", PRODUCTION, triple(number), change())
            assert calls.acquire(timeout=5)
    finally:
        watcher.close()
        client.close()


def test_a_watcher_that_is_closed_waits_for_no_event(valkey: redis.Redis, redis_url: str) -> None:
    called = threading.Event()
    watcher = StateWatcher(redis_url, called.set, poll_s=60).start()
    assert called.wait(5)
    began = time.monotonic()
    watcher.close()
    assert time.monotonic() - began < 10, "it blocks on the stream for a minute"


def test_a_watcher_whose_receiver_failed_tries_again(valkey: redis.Redis, redis_url: str) -> None:
    outcomes: list[Callable[[], None]] = []
    done = threading.Event()

    def receive() -> None:
        outcomes.append(receive)
        if len(outcomes) == 1:
            raise RuntimeError("the first time")
        done.set()

    watcher = StateWatcher(redis_url, receive, poll_s=0.5).start()
    assert done.wait(5)
    watcher.close()


def test_a_watcher_notices_a_raised_revision_even_when_the_stream_says_nothing(
    valkey: redis.Redis, redis_url: str
) -> None:
    calls = threading.Semaphore(0)
    watcher = StateWatcher(redis_url, lambda: calls.release(), poll_s=0.2).start()
    assert calls.acquire(timeout=5)
    valkey.incr("recsae:revision")
    assert calls.acquire(timeout=5)
    watcher.close()
