"""Stage evidence: one step per collected shard adds up what the concepts' evidence needs of it; the merge of several.

A step leaves its sums whole before its manifest, and equal rows give equal bytes: a worker may die at any time, what
has a manifest is merged once, whatever was done twice. Not here: what is in the sums (`recsae.concepts.evidence_sums`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from recsae.concepts.evidence_files import load_sums, save_sums
from recsae.concepts.evidence_reading import RowFacts, read_shard
from recsae.concepts.evidence_sums import EvidenceSums
from recsae.concepts.features import log_item_counts
from recsae.concepts.sampling import ROWS_PER_PART
from recsae.concepts.splits import UserPart, split_users
from recsae.errors import FailedPreconditionError
from recsae.pipeline.advance import StepResult, read_facts
from recsae.pipeline.lanes import Lane, lane_of
from recsae.pipeline.stages.material import fetch_shard, load_run_data, read_plan
from recsae.pipeline.stages.run_data import Part, RunData
from recsae.pipeline.stages.train import sae_folder
from recsae.pipeline.steps import StepContext
from recsae.sae.pooling import subject_encoder
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.shards import ShardReader

_SAMPLED = {Part.CONSTRUCTION: UserPart.CONSTRUCTION, Part.VERIFICATION: UserPart.VERIFICATION}


def evidence(context: StepContext) -> StepResult:
    """One shard."""
    lane = lane_of(context.step.stage, context.run.config)
    name = context.step.shard
    sae = SparseAutoencoder.load(context.workspace.fetch_folder(sae_folder(lane)), "unpublished")
    interests, data = read_plan(context.workspace, lane).model.interests, load_run_data(context, lane)
    (shard,) = ShardReader.open_files([fetch_shard(context.workspace, lane, name)]).mapped()
    context.report(f"{name}: {len(shard.user):,} rows")
    sums = read_shard(shard, subject_encoder(sae, interests), _row_facts(data, lane))
    context.lease.check()
    with tempfile.TemporaryDirectory() as folder:
        save_sums(sums, Path(folder))
        context.workspace.put_folder(_folder(lane, name), Path(folder))
    return StepResult({}, {"rows": len(shard.user)}, f"{name}: evidence of {len(shard.user):,} rows")


def has_evidence(context: StepContext, lane: Lane) -> bool:
    """Whether the run has this stage in the lane; the control's rows are few and read where they are needed."""
    return any(stage.name == lane.stage("evidence") for stage in context.run.stages)


def merged_evidence(context: StepContext, lane: Lane, *parts: Part) -> EvidenceSums:
    """The sums of all shards of some parts, a few in memory at a time. Shards of other parts are not opened.

    FailedPreconditionError when the rows are not those that were collected, each once.
    """
    plan = read_plan(context.workspace, lane)
    names = [shard.name for shard in plan.shards if shard.part in parts]
    rows_of = [_SAMPLED[part] for part in parts if part in _SAMPLED]

    def each() -> Iterator[EvidenceSums]:
        for name in names:
            context.lease.check()
            yield load_sums(context.workspace.fetch_folder(_folder(lane, name)), rows_of)

    merged = EvidenceSums.merge(each())
    collected = sum(int(read_facts(context.workspace, lane.stage("collect"), name)["rows"]) for name in names)
    if int(merged.rows.sum()) != collected:
        raise FailedPreconditionError(
            f"the evidence is of {int(merged.rows.sum()):,} rows, {collected:,} were collected; start a new run"
        )
    return merged


def _row_facts(data: RunData, lane: Lane) -> RowFacts:
    users = split_users(data.dataset.users.ids)
    return RowFacts(
        parts=np.append(users, np.int8(UserPart.SAE)),
        histories=data.histories,
        log_counts=log_item_counts(data.histories, data.dataset.items.count),
        rows_per_part=lane.rows_per_part or ROWS_PER_PART,
    )


def _folder(lane: Lane, shard: str) -> str:
    return f"{lane.stage('evidence')}/{shard}"
