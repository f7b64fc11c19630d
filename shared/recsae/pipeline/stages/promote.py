"""Stage promote: points production at what the run published, when the gates pass; else it stays a candidate."""

from __future__ import annotations

from recsae.pipeline.advance import StepResult, read_facts
from recsae.pipeline.stages.gates import failed_gates
from recsae.pipeline.stages.publish import change_by
from recsae.pipeline.steps import StepContext
from recsae.store.channels import PRODUCTION


def promote(context: StepContext) -> StepResult:
    """The whole stage. Not passing is a result, not an error: the run succeeds and says why it stopped there."""
    run, channels = context.platform.runs.get(context.run.id), context.platform.channels
    seen = channels.read(run.config.model).channel(PRODUCTION)
    # Runs begun by a release that ranked every model say nothing of it.
    not_ranked = read_facts(context.workspace, "evaluate").get("not_ranked", "")
    if reasons := failed_gates(run.scores, ranked=not not_ranked):
        return StepResult({"gates.passed": 0.0}, {}, f"left as candidate: {'; '.join(reasons)}")
    context.lease.check()
    change = change_by(context, "channel.promote", "the gates of its run passed")
    channels.point(run.config.model, PRODUCTION, run.triple, change, expected_revision=seen.revision)
    words = f"; NDCG@10 kept not measured: {not_ranked}" if not_ranked else ""
    return StepResult({"gates.passed": 1.0}, {}, f"promoted to production{words}")
