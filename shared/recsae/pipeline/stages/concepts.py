"""What both concept stages read: the rows, histories, facets and vectors a dictionary is built from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.sampling import ROWS_PER_PART
from recsae.datasets.facets import build_facets
from recsae.errors import FailedPreconditionError
from recsae.pipeline.advance import read_facts
from recsae.pipeline.lanes import Lane
from recsae.pipeline.sources import SourceModel
from recsae.pipeline.stages.before import dictionary_before
from recsae.pipeline.stages.embedding import embedder
from recsae.pipeline.stages.material import Part, RunData, load_run_data, open_shards, read_plan
from recsae.pipeline.stages.train import sae_folder
from recsae.pipeline.steps import StepContext
from recsae.sae.runtime import SparseAutoencoder


def dictionary_inputs(
    context: StepContext, lane: Lane, *, sae_version: str, control: Mapping[str, Any] | None = None
) -> DictionaryInputs:
    """Inputs of a lane; `sae_version` is "control" for an SAE that is not published."""
    data = load_run_data(context.platform, context.run)
    model = read_plan(context.workspace, lane).model
    items = data.dataset.items
    rows = open_shards(context.workspace, lane, Part.SAE, Part.CONSTRUCTION, Part.VERIFICATION, Part.ITEMS)
    return DictionaryInputs(
        model=model.name,
        model_version=model.version,
        sae=SparseAutoencoder.load(context.workspace.fetch_folder(sae_folder(lane)), sae_version),
        shards=rows.mapped(),
        histories=data.histories,
        pseudonyms=data.dataset.users.ids,
        item_ids=items.ids,
        titles=items.titles,
        facets=build_facets(items, data.histories),
        embed=embedder(context, model, data),
        max_history=model.max_history,
        item_vectors=_item_vectors(context, model, data),
        previous=None if lane.prefix else dictionary_before(context),
        control=control,
        rows_per_part=lane.rows_per_part or ROWS_PER_PART,
    )


def published_sae(context: StepContext) -> str:
    """Version of the SAE the evaluate stage published."""
    return str(read_facts(context.workspace, "evaluate")["sae_version"])


def _item_vectors(context: StepContext, model: SourceModel, data: RunData) -> NDArray[np.float32] | None:
    """Vectors of the data set's items, float32 [n_items + 1, d], row 0 = padding."""
    exported = context.platform.source.item_vectors(model)
    if exported is None:
        return None
    row_of = {item_id: row for row, item_id in enumerate(exported.item_ids)}
    unknown = [item_id for item_id in data.dataset.items.ids if item_id not in row_of]
    if unknown:
        raise FailedPreconditionError(
            f"model {model.name} does not know {len(unknown)} of {data.dataset.items.count} items of the data set, "
            f"e.g. {unknown[0]!r}; use the data set it was trained on"
        )
    vectors = exported.vectors[[row_of[item_id] for item_id in data.dataset.items.ids]]
    return np.concatenate([np.zeros((1, model.dim), np.float32), vectors]).astype(np.float32)
