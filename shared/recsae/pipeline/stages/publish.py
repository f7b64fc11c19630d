"""Stage publish: the dictionary with its frozen drift reference becomes an artifact, and candidate points at it.

The reference is counted on the newest row of every user the SAE was not trained on: what serving would have seen.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.meaning import embed_concepts
from recsae.concepts.minilm import MiniLm
from recsae.drift.counters import ConceptCounters
from recsae.drift.reference import save_reference
from recsae.pipeline.advance import StepResult, read_facts
from recsae.pipeline.lanes import Lane, lane_of
from recsae.pipeline.stages.llm import finished_folder
from recsae.pipeline.stages.material import hook_config, load_run_data, newest_rows, open_shards, read_plan
from recsae.pipeline.stages.run_data import Part
from recsae.pipeline.stages.train import sae_folder
from recsae.pipeline.steps import StepContext
from recsae.pipeline.triples import Triple
from recsae.sae.pooling import single_vectors
from recsae.sae.runtime import SparseAutoencoder
from recsae.store.channels import CANDIDATE
from recsae.store.events import Change, change_now

_ROWS_AT_ONCE = 8_192


def publish(context: StepContext) -> StepResult:
    """The whole stage."""
    lane = lane_of(context.step.stage, context.run.config)
    model = read_plan(context.workspace, lane).model
    sae_version = read_facts(context.workspace, lane.stage("evaluate"))["sae_version"]
    run = context.platform.runs.get(context.run.id)
    with tempfile.TemporaryDirectory() as scratch:
        folder = context.workspace.copy_folder(finished_folder(context, lane), Path(scratch))
        save_reference(reference_counters(context, lane), folder)
        save_meanings(folder)
        context.lease.check()
        version = context.platform.artifacts.publish(
            "dictionary",
            folder,
            config=hook_config(model),
            lineage={"model": model.version, "sae": sae_version, "dataset": run.config.dataset_version},
            scores=run.scores,
        )
    triple = Triple(model.version, sae_version, version)
    change = change_by(context, "channel.candidate", "published by its run")
    context.platform.channels.point(run.config.model, CANDIDATE, triple, change)
    return StepResult({}, {"triple": asdict(triple)}, f"dictionary {version} is the candidate")


def save_meanings(folder: Path) -> None:
    """Adds embeddings of the concepts of the dictionary in `folder`, where the extra meaning is installed."""
    embedder = MiniLm.installed()
    if embedder is not None:
        embed_concepts(Dictionary.load(folder, "").concepts, embedder).save(folder)


def reference_counters(context: StepContext, lane: Lane) -> ConceptCounters:
    """Counters of the newest row of each held-out user, each of its interests by itself, as live rows are counted."""
    sae = SparseAutoencoder.load(context.workspace.fetch_folder(sae_folder(lane)), "unpublished")
    interests, data = read_plan(context.workspace, lane).model.interests, load_run_data(context, lane)
    counters = ConceptCounters(sae.width)
    for shard in open_shards(context.workspace, lane, Part.CONSTRUCTION, Part.VERIFICATION).shards():
        rows = newest_rows(shard, data)
        for begin in range(0, len(rows), _ROWS_AT_ONCE):
            x = single_vectors(shard.x[rows[begin : begin + _ROWS_AT_ONCE]], sae.d, interests)
            codes = sae.encode(x)
            counters.add(codes.indices, codes.values, x, sae.decode(codes), mean=sae.mean, at=context.run.created_at)
            context.lease.check()
    return counters


def change_by(context: StepContext, action: str, reason: str) -> Change:
    """A change this run makes, for the audit trail."""
    return change_now(actor=f"run {context.run.id}", action=action, reason=reason, request_id=context.run.id)
