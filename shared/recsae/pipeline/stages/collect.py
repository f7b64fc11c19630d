"""Stage collect: activations of every position of every history, and of every item, out of the recommender.

The first shard ("plan") pins the model's version and cuts the work; then each shard is one file, written whole, and
can be done again or elsewhere. The test item of each user is left out of its history: nothing learns from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.windows import Window, cut
from recsae.errors import FailedPreconditionError
from recsae.pipeline.advance import StepResult
from recsae.pipeline.lanes import Lane, lane_of
from recsae.pipeline.run_store import update
from recsae.pipeline.sources import Floats, SourceModel
from recsae.pipeline.stages.material import (
    ITEMS,
    PLAN,
    Part,
    Plan,
    RunData,
    Shard,
    load_run_data,
    manifest_file,
    read_plan,
    shard_file,
)
from recsae.pipeline.steps import StepContext
from recsae.sae.shards import ActivationShard, item_probes, shard_manifest

# Of the order in which a lane that reads a part in part takes its users.
_ORDER_SEED = 0
# 64 MB at d = 256: seconds of work, so that little is lost with a worker.
ROWS_PER_SHARD = 65_536
_USERS_PER_CALL = 64


def collect(context: StepContext) -> StepResult:
    """One shard."""
    lane = lane_of(context.step.stage, context.run.config)
    data = load_run_data(context.platform, context.run)
    if context.step.shard == PLAN:
        return _plan(context, lane, data)
    plan = read_plan(context.workspace, lane)
    shard = plan.shard(context.step.shard)
    if shard.part is Part.ITEMS:
        rows = _item_rows(context, plan, data)
    else:
        users = users_in_order(data, shard.part, lane.rows_per_part)[shard.begin : shard.end]
        rows = _user_rows(context, plan.model, shard, users.tolist(), data)
    content = rows.to_bytes()
    context.workspace.write(shard_file(lane, shard.name), content)
    facts = {
        "model": plan.model.name,
        "model_version": plan.model.version,
        "hook": plan.model.hook,
        "dataset": context.run.config.dataset_version,
    }
    context.workspace.write_json(manifest_file(lane, shard.name), shard_manifest(rows, content, facts))
    return StepResult({}, {"rows": len(rows.user)}, f"{shard.name}: {len(rows.user):,} rows")


def users_in_order(data: RunData, part: Part, rows_per_part: int | None) -> NDArray[np.int64]:
    """Users of a part in the order they are collected, int64.

    Shuffled where only the first of them are read: files list users by name or by when they came, and the first
    thousands of those are no sample of all.
    """
    users = data.users_of(part)
    return users if rows_per_part is None else np.random.default_rng(_ORDER_SEED).permutation(users)


def plan_shards(data: RunData, rows_per_part: int | None = None) -> tuple[Shard, ...]:
    """Cuts each part's users into shards of about `ROWS_PER_SHARD` rows, at most `rows_per_part` rows of a part."""
    shards: list[Shard] = []
    for part in (Part.SAE, Part.CONSTRUCTION, Part.VERIFICATION):
        users = users_in_order(data, part, rows_per_part)
        before = np.concatenate([[0], np.cumsum(data.histories.lengths[users])])
        stop = len(before) - 1
        if rows_per_part is not None:
            stop = min(stop, int(np.searchsorted(before, rows_per_part, side="left")))
        begin = 0
        while begin < stop:
            end = int(np.searchsorted(before, before[begin] + ROWS_PER_SHARD, side="right")) - 1
            end = min(stop, max(begin + 1, end))
            shards.append(Shard(f"{part}-{len(shards):04d}", part, begin, end))
            begin = end
    return (*shards, Shard(ITEMS, Part.ITEMS, 0, 0))


def _plan(context: StepContext, lane: Lane, data: RunData) -> StepResult:
    model = context.platform.source.describe(lane.model)
    if not model.all_positions:
        raise FailedPreconditionError(
            f"hook {model.hook!r} of model {model.name} exports the last position only; refreshes need every position"
        )
    plan = Plan(model, plan_shards(data, lane.rows_per_part))
    parts = {shard.part for shard in plan.shards}
    if missing := {Part.SAE, Part.CONSTRUCTION, Part.VERIFICATION} - parts:
        raise FailedPreconditionError(
            f"data set {context.run.config.dataset_version} has no users for {', '.join(sorted(missing))}; "
            "it needs at least a few dozen users"
        )
    if not lane.prefix:
        update(
            context.platform.runs,
            context.run.id,
            lambda run: run if run.state.ended else replace(run, config=run.config.completed(model.dim)),
            context.platform.clock,
        )
    return StepResult({}, plan.facts(), f"{len(plan.shards)} shards of {model.name} {model.version}")


def _user_rows(
    context: StepContext, model: SourceModel, shard: Shard, users: list[int], data: RunData
) -> ActivationShard:
    parts: list[ActivationShard] = []
    for begin in range(0, len(users), _USERS_PER_CALL):
        batch = users[begin : begin + _USERS_PER_CALL]
        parts.append(_rows_of(context, model, batch, data))
        context.report(f"{shard.name}: {begin + len(batch)} of {len(users)} users")
    return ActivationShard(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "user", "position", "item"))
    )


def _rows_of(context: StepContext, model: SourceModel, users: list[int], data: RunData) -> ActivationShard:
    windows = list(_windows(users, data, model.max_history))
    histories = [data.item_ids(data.histories.of(user)[window.begin : window.end]) for user, window in windows]
    x = context.platform.source.every_position(model, histories)
    kept = np.concatenate([np.arange(w.begin, w.end) >= w.keep for _, w in windows])
    position = np.concatenate([np.arange(w.begin, w.end) for _, w in windows])[kept].astype(np.int32)
    user = np.repeat([user for user, _ in windows], [w.end - w.begin for _, w in windows])[kept].astype(np.int32)
    item = data.histories.items[data.histories.offsets[user] + position].astype(np.int32)
    return ActivationShard(np.ascontiguousarray(x[kept]), user, position, item)


def _windows(users: list[int], data: RunData, max_history: int) -> Iterator[tuple[int, Window]]:
    for user in users:
        for window in cut(int(data.histories.lengths[user]), max_history):
            yield user, window


def _item_rows(context: StepContext, plan: Plan, data: RunData) -> ActivationShard:
    """Probes of the items the data set knows; those only the model knows have no facets to describe them."""
    index = {item_id: number for number, item_id in enumerate(data.dataset.items.ids, start=1)}
    x: list[Floats] = []
    items: list[int] = []
    for page in context.platform.source.items(plan.model):
        known = [row for row, item_id in enumerate(page.item_ids) if item_id in index]
        x.append(page.activations[known])
        items += [index[page.item_ids[row]] for row in known]
        context.report(f"{len(items):,} items")
    return item_probes(np.concatenate(x), np.asarray(items, np.int32))
