"""How a part's users are cut into shards."""

from __future__ import annotations

import numpy as np

from recsae.datasets.schema import Dataset, Histories, ItemTable, UserTable
from recsae.pipeline.stages.collect import plan_shards, users_in_order
from recsae.pipeline.stages.run_data import Part, RunData

USERS, LENGTH = 2_000, 10


def data() -> RunData:
    """Users in the order they came, each with ten interactions."""
    users = np.repeat(np.arange(USERS), LENGTH)
    items = np.ones(len(users), np.int64)
    histories = Histories.from_rows(users, items, np.arange(len(users), dtype=np.float64), USERS)
    names = UserTable(tuple(f"u{number}" for number in range(USERS)), {})
    return RunData(Dataset("d", ItemTable(("i",), ("i",), {}), names, histories), histories, np.zeros(USERS, np.int32))


def collected(run: RunData, part: Part, rows_per_part: int | None) -> list[int]:
    users = users_in_order(run, part, rows_per_part)
    shards = [shard for shard in plan_shards(run, rows_per_part) if shard.part is part]
    return [user for shard in shards for user in users[shard.begin : shard.end].tolist()]


def test_a_plan_without_a_limit_takes_every_user_once() -> None:
    run = data()
    for part in (Part.SAE, Part.CONSTRUCTION, Part.VERIFICATION):
        assert collected(run, part, None) == run.users_of(part).tolist()


def test_a_limited_plan_draws_its_users_from_the_whole_part() -> None:
    run = data()
    for part in (Part.SAE, Part.CONSTRUCTION, Part.VERIFICATION):
        users = collected(run, part, 1_000)
        assert len(users) == len(set(users)) == 100
        assert set(users) <= set(run.users_of(part).tolist())
        # The mean of 100 users drawn from 0..1999 has a standard error of 58.
        assert abs(np.mean(users) - USERS / 2) < 250


def test_a_limited_plan_takes_the_same_users_each_time() -> None:
    assert collected(data(), Part.SAE, 1_000) == collected(data(), Part.SAE, 1_000)
