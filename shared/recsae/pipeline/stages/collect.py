"""Stage collect: activations of every position of every history, and of every item, out of the recommender.

The first shard ("plan") pins the model's version and cuts the work; then each shard is one file, written whole, and
can be done again or elsewhere. The test item of each user is left out of its history: nothing learns from it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError
from recsae.pipeline.advance import StepResult
from recsae.pipeline.lanes import Lane, lane_of
from recsae.pipeline.run_store import update
from recsae.pipeline.sources import Floats, SourceModel
from recsae.pipeline.stages.material import (
    ITEMS,
    PLAN,
    Plan,
    Shard,
    fitted,
    hook_config,
    load_run_data,
    manifest_file,
    read_plan,
    shard_file,
    whole_run_data,
    write_unknown_items,
)
from recsae.pipeline.stages.run_data import Part, RunData
from recsae.pipeline.stages.user_rows import UserRows, read_users
from recsae.pipeline.steps import StepContext
from recsae.sae.shards import item_probes, shard_manifest

# Of the order in which a lane that reads a part in part takes its users.
_ORDER_SEED = 0
# 64 MB at d = 256: seconds of work, so that little is lost with a worker.
ROWS_PER_SHARD = 65_536


def collect(context: StepContext) -> StepResult:
    """One shard."""
    lane = lane_of(context.step.stage, context.run.config)
    if context.step.shard == PLAN:
        return _plan(context, lane)
    plan, data = read_plan(context.workspace, lane), load_run_data(context, lane)
    shard = plan.shard(context.step.shard)
    found = (
        _item_rows(context, plan, data) if shard.part is Part.ITEMS else _user_rows(context, lane, plan, shard, data)
    )
    content = found.shard.to_bytes()
    context.workspace.write(shard_file(lane, shard.name), content)
    facts = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in hook_config(plan.model).items()
    }
    facts |= {"model_version": plan.model.version, "dataset": context.run.config.dataset_version}
    context.workspace.write_json(manifest_file(lane, shard.name), shard_manifest(found.shard, content, facts))
    rows = len(found.shard.user)
    words = f"{shard.name}: {rows:,} rows"
    if found.unknown_users:
        words += f"; {found.unknown_users:,} users the model does not know left out"
    return StepResult({}, {"rows": rows, "unknown_users": found.unknown_users}, words)


def users_in_order(data: RunData, part: Part, rows_per_part: int | None) -> NDArray[np.int64]:
    """Users of a part in the order they are collected, int64.

    Shuffled where only the first of them are read: files list users by name or by when they came, and the first
    thousands of those are no sample of all.
    """
    users = data.users_of(part)
    return users if rows_per_part is None else np.random.default_rng(_ORDER_SEED).permutation(users)


def plan_shards(data: RunData, rows_per_part: int | None = None, model: SourceModel | None = None) -> tuple[Shard, ...]:
    """Cuts each part's users into shards of about `ROWS_PER_SHARD` rows, at most `rows_per_part` rows of a part.

    Without a `model` a user has a row per interaction, and items are probes beside them.
    """
    per_user, interests = (model.row_per_user, model.interests) if model else (False, 1)
    rows_of = np.minimum(data.histories.lengths, 1) if per_user else data.histories.lengths
    shards: list[Shard] = []
    for part in (Part.SAE, Part.CONSTRUCTION, Part.VERIFICATION):
        users = users_in_order(data, part, rows_per_part)
        before = np.concatenate([[0], np.cumsum(rows_of[users])])
        stop = len(before) - 1
        if rows_per_part is not None:
            stop = min(stop, int(np.searchsorted(before, rows_per_part, side="left")))
        begin = 0
        while begin < stop:
            end = int(np.searchsorted(before, before[begin] + ROWS_PER_SHARD // interests, side="right")) - 1
            end = min(stop, max(begin + 1, end))
            shards.append(Shard(f"{part}-{len(shards):04d}", part, begin, end))
            begin = end
    # A model that reads no history makes nothing of one item; where it has vectors of items, these are subjects.
    return tuple(shards) if model and model.ignores_history else (*shards, Shard(ITEMS, Part.ITEMS, 0, 0))


def _plan(context: StepContext, lane: Lane) -> StepResult:
    source, whole = context.platform.source, whole_run_data(context)
    model = source.describe(lane.model)
    unknown = _unknown_items(whole, set(source.item_ids(model)), model)
    write_unknown_items(context.workspace, lane, unknown)
    data = fitted(context, lane, whole, model)
    plan = Plan(model, plan_shards(data, lane.rows_per_part, model))
    parts = {shard.part for shard in plan.shards}
    if missing := {Part.SAE, Part.CONSTRUCTION, Part.VERIFICATION} - parts:
        raise FailedPreconditionError(
            f"data set {context.run.config.dataset_version} has no users for {', '.join(sorted(missing))}; "
            "it needs at least a few dozen users"
        )
    # Rows of single users are few; of interactions there are enough for the default.
    judged = len(data.users_of(Part.VERIFICATION)) if model.row_per_user else None
    if not lane.prefix:
        update(
            context.platform.runs,
            context.run.id,
            lambda run: run if run.state.ended else replace(run, config=run.config.completed(model.dim, judged)),
            context.platform.clock,
        )
    counts = {
        "users": int((data.histories.lengths[: data.first_item_subject] > 0).sum()),
        "item_subjects": data.item_subjects,
        "unknown_items": len(unknown),
    }
    words = f"{len(plan.shards)} shards of {model.name} {model.version}"
    if data.item_subjects:
        words += f"; a row each of {counts['users']:,} users and {data.item_subjects:,} items"
    if unknown:
        words += f"; {len(unknown):,} of {whole.dataset.items.count:,} items left out: the model does not know them"
    return StepResult({}, plan.facts() | counts, words)


def _unknown_items(data: RunData, known: set[str], model: SourceModel) -> list[int]:
    """Indices of items the model does not know; FailedPreconditionError when it knows none."""
    ids = data.dataset.items.ids
    unknown = [index for index, item_id in enumerate(ids, start=1) if item_id not in known]
    if len(unknown) == len(ids):
        raise FailedPreconditionError(
            f"model {model.name} knows none of the data set's {len(ids):,} items, e.g. not {ids[0]!r}; use the data "
            "set it was trained on, with the item ids it was trained with"
        )
    return unknown


def _user_rows(context: StepContext, lane: Lane, plan: Plan, shard: Shard, data: RunData) -> UserRows:
    users = users_in_order(data, shard.part, lane.rows_per_part)[shard.begin : shard.end].tolist()

    def report(done: int) -> None:
        context.report(f"{shard.name}: {done} of {len(users)} users")

    return read_users(context.platform.source, plan.model, users, data, report)


def _item_rows(context: StepContext, plan: Plan, data: RunData) -> UserRows:
    """Probes of the items the data set knows; those only the model knows have no facets to describe them."""
    index = {item_id: number for number, item_id in enumerate(data.dataset.items.ids, start=1)}
    x: list[Floats] = []
    items: list[int] = []
    for page in context.platform.source.items(plan.model):
        known = [row for row, item_id in enumerate(page.item_ids) if item_id in index]
        x.append(page.activations[known])
        items += [index[page.item_ids[row]] for row in known]
        context.report(f"{len(items):,} items")
    return UserRows(item_probes(np.concatenate(x), np.asarray(items, np.int32)))
