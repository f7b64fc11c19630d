"""Stage control_verify: the same describing and judging on the untrained model's SAE; only its summary is kept.

What passes here passes without the model having learnt anything, so every score is read beside it.
"""

from __future__ import annotations

from recsae.concepts.build import build_dictionary
from recsae.pipeline.advance import StepResult
from recsae.pipeline.lanes import lane_of
from recsae.pipeline.stages.concepts import dictionary_inputs
from recsae.pipeline.stages.verify import summary_scores
from recsae.pipeline.steps import StepContext


def control_verify(context: StepContext) -> StepResult:
    """The whole stage."""
    lane = lane_of(context.step.stage, context.run.config)
    dictionary = build_dictionary(dictionary_inputs(context, lane, sae_version="control"), context.report)
    summary = dict(dictionary.summary)
    detail = f"{summary['verified']['count']} of {summary['live']} live concepts verified on {lane.model}"
    return StepResult(summary_scores("control.concepts", summary), {"summary": summary}, detail)
