"""Stage causal: what turning each concept does on a fixed panel, and handles; the records are completed with it.

Needs a dot-product head, whose scores can be computed here, on a hook it goes on from. Any other is reported as not
measured, with the reason: its concepts have no safe range then, and policies on them are refused unless they ask for
that.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from recsae.concepts.causal.board import Head
from recsae.concepts.causal.completing import complete, not_measured
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.inputs import DictionaryInputs
from recsae.pipeline.advance import StepResult, manifest_name
from recsae.pipeline.lanes import Lane, lane_of
from recsae.pipeline.stages import verify
from recsae.pipeline.stages.concepts import dictionary_inputs, published_sae
from recsae.pipeline.stages.material import load_run_data, open_shards, read_plan
from recsae.pipeline.stages.rankable import why_no_effects
from recsae.pipeline.stages.run_data import Part
from recsae.pipeline.steps import StepContext


def dictionary_folder(lane: Lane) -> str:
    """Where the dictionary with its effects lies in the work folder."""
    return f"{lane.stage('causal')}/dictionary"


def measured_folder(context: StepContext, lane: Lane) -> str:
    """Where the dictionary lies after this stage; runs begun by a release that measured no effects lack those."""
    measured = context.workspace.exists(manifest_name(lane.stage("causal"), "all"))
    return dictionary_folder(lane) if measured else verify.dictionary_folder(lane)


def causal(context: StepContext) -> StepResult:
    """The whole stage."""
    lane = lane_of(context.step.stage, context.run.config)
    sae_version = published_sae(context)
    folder = context.workspace.fetch_folder(verify.dictionary_folder(lane))
    dictionary = Dictionary.load(folder, "unpublished")
    inputs = dictionary_inputs(context, lane, sae_version=sae_version)
    head = _head(context, lane, inputs)
    if head is None:
        done = not_measured(dictionary, why_no_effects(read_plan(context.workspace, lane).model))
    else:
        rows = open_shards(context.workspace, lane, Part.CONSTRUCTION, Part.VERIFICATION).mapped()
        targets = load_run_data(context, lane).targets
        done = complete(dictionary, inputs, head, rows, targets, progress=context.report)
    with tempfile.TemporaryDirectory() as scratch:
        # Probe rows lie beside the dictionary and go where it goes.
        finished = context.workspace.copy_folder(verify.dictionary_folder(lane), Path(scratch))
        done.dictionary.save(finished)
        context.workspace.put_folder(dictionary_folder(lane), finished)
    scores = {f"causal.{name}": float(value) for name, value in done.facts.items() if name != "panel"}
    return StepResult(scores, dict(done.facts), done.detail)


def _head(context: StepContext, lane: Lane, inputs: DictionaryInputs) -> Head | None:
    """Vectors and biases by the data set's item indices; None for a head that is no dot product."""
    if inputs.item_vectors is None:
        return None
    exported = context.platform.source.item_vectors(read_plan(context.workspace, lane).model)
    if exported is None or exported.biases is None:
        return Head(inputs.item_vectors)
    bias_of = dict(zip(exported.item_ids, exported.biases.tolist(), strict=True))
    return Head(inputs.item_vectors, np.array([0.0, *(bias_of[item_id] for item_id in inputs.item_ids)], np.float32))
