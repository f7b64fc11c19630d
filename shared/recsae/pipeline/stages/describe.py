"""Stage describe: every latent gets evidence, a label and a rule, from construction users only."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from recsae.concepts.catalogue import Catalogue, make_catalogue
from recsae.concepts.construction import describe as describe_latents
from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.probe_set import make_probe_set
from recsae.pipeline.advance import StepResult
from recsae.pipeline.lanes import Lane, lane_of
from recsae.pipeline.stages.concepts import DESCRIBED, dictionary_inputs, published_sae
from recsae.pipeline.steps import StepContext


def description_folder(lane: Lane) -> str:
    """Where the description lies in the work folder."""
    return f"{lane.stage('describe')}/description"


def describe(context: StepContext) -> StepResult:
    """The whole stage."""
    lane = lane_of(context.step.stage, context.run.config)
    inputs = dictionary_inputs(context, lane, sae_version=published_sae(context), parts=DESCRIBED)
    description = describe_latents(inputs, context.report)
    with tempfile.TemporaryDirectory() as folder:
        description.save(Path(folder))
        make_probe_set(inputs).save(Path(folder))
        catalogue_of(inputs).save(Path(folder))
        context.workspace.put_folder(description_folder(lane), Path(folder))
    labelled = sum(bool(concept.label) for concept in description.draft.concepts)
    return StepResult({"concepts.labelled": float(labelled)}, {}, f"{labelled:,} latents described")


def catalogue_of(inputs: DictionaryInputs) -> Catalogue:
    """The items a dictionary is about, with the facets and counts it was made with."""
    counts = np.bincount(inputs.histories.items, minlength=inputs.n_items + 1)[1:]
    facets = inputs.facets.matrix.tocoo()
    return make_catalogue(inputs.item_ids, counts, inputs.facets.names, facets.row - 1, facets.col)
