"""Five deaths of the state server during writes lose nothing, and the comparison that says so notices what is lost."""

from __future__ import annotations

from pathlib import Path

import redis
from benchmarks.durability import measure
from benchmarks.durability_writes import Ledger, Writer, compared, shared_policy

from recsae.store.events import EVENTS
from recsae.store.redis import connect


def test_nothing_acknowledged_is_lost_doubled_or_torn_in_five_kills_during_writes(tmp_path: Path) -> None:
    done = measure(tmp_path, kills=5)
    assert done.found.fine, done.found
    assert done.kills == 5
    assert done.acknowledged > done.policies > 0
    assert done.interrupted > 0, "no kill fell into a write"


def test_what_is_lost_written_twice_or_changed_is_noticed(redis_url: str) -> None:
    with connect(redis_url) as client, redis.Redis.from_url(redis_url) as raw:
        ledger = Ledger()
        shared = shared_policy(client, ledger)
        writer = Writer(client, ledger, shared, seed=1)
        for _ in range(60):
            writer.step()
        assert compared(client, ledger).fine

        def found_after(damage: str, *arguments: str) -> tuple[bool, bool, bool]:
            keys = list(raw.scan_iter("recsae:*"))
            with raw.pipeline() as pipeline:
                for key in keys:
                    pipeline.dump(key)
                kept = pipeline.execute()
            client.execute_command(damage, *arguments)
            found = compared(client, ledger)
            client.flushall()
            with raw.pipeline() as pipeline:
                for key, value in zip(keys, kept, strict=True):
                    pipeline.restore(key, 0, value)
                pipeline.execute()
            return bool(found.lost), bool(found.doubled), bool(found.torn)

        newest_id, newest = client.xrevrange(EVENTS, count=1)[0]
        own = next(name for name in ledger.policies if name != shared.id)
        twice = [part for pair in newest.items() for part in pair]
        assert found_after("XDEL", EVENTS, newest_id) == (True, False, True)
        assert found_after("XADD", EVENTS, "*", *twice) == (False, True, True)
        assert found_after("HSET", "recsae:policies", own, client.hget("recsae:policies", shared.id))[2]
        assert found_after("HDEL", "recsae:policies", own)[2]
        assert found_after("LPOP", f"recsae:policy-revisions:{own}")[2]
        assert found_after("INCR", "recsae:revision") == (False, False, True)
        assert compared(client, ledger).fine
