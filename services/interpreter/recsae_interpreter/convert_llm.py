"""The message for what a language model said of a concept. Nothing here computes."""

from __future__ import annotations

from recsae.concepts.estimates import Estimate
from recsae.concepts.records import LlmRecord
from recsae.v1 import interpreter_pb2


def llm_message(said: LlmRecord) -> interpreter_pb2.LlmDescription:
    """All of it; scores that were not computed are absent."""
    return interpreter_pb2.LlmDescription(
        label=said.label,
        description=said.description,
        model=said.model,
        prompts=said.prompts,
        cases=said.cases,
        correlation=_estimate(said.correlation),
        precision=_estimate(said.precision),
        recall=_estimate(said.recall),
        f1=_estimate(said.f1),
        unrated=said.unrated,
        recsae_10_case=said.recsae_10_case,
        swapped_10_case=said.swapped_10_case,
        failure=said.failure,
    )


def _estimate(one: Estimate) -> interpreter_pb2.Estimate:
    return interpreter_pb2.Estimate(value=one.value, low=one.low, high=one.high)
