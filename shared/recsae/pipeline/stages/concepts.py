"""What both concept stages read: the rows, histories, facets and vectors a dictionary is built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.output_differences import Rank, ScoredLists
from recsae.concepts.sampling import ROWS_PER_PART
from recsae.concepts.splits import UserPart, split_users
from recsae.datasets.facets import build_facets
from recsae.datasets.schema import Histories
from recsae.errors import FailedPreconditionError
from recsae.pipeline.advance import read_facts
from recsae.pipeline.lanes import Lane
from recsae.pipeline.sources import SourceModel
from recsae.pipeline.stages.before import dictionary_before
from recsae.pipeline.stages.embedding import embedder
from recsae.pipeline.stages.evidence import has_evidence, merged_evidence
from recsae.pipeline.stages.material import CollectedShards, load_run_data, read_plan
from recsae.pipeline.stages.rankable import can_difference
from recsae.pipeline.stages.run_data import Part, RunData
from recsae.pipeline.stages.train import sae_folder
from recsae.pipeline.steps import StepContext
from recsae.sae.pooling import pooled_scores, single_vectors, subject_encoder
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.weights import load_weights

# The longest list a recommender gives, and lists asked for between two looks at the lease.
_LISTED, _RANKED_AT_ONCE = 1_000, 256


# What describing and verifying read: verification users' rows are opened by the latter alone.
DESCRIBED = (Part.SAE, Part.CONSTRUCTION, Part.ITEMS)
VERIFIED = (Part.VERIFICATION,)


def dictionary_inputs(
    context: StepContext,
    lane: Lane,
    *,
    sae_version: str,
    control: Mapping[str, Any] | None = None,
    parts: Sequence[Part] = tuple(Part),
) -> DictionaryInputs:
    """Inputs of a lane with the rows of some parts; `sae_version` is "control" for an SAE that is not published."""
    data = load_run_data(context, lane)
    model = read_plan(context.workspace, lane).model
    items = data.dataset.items
    folder = context.workspace.fetch_folder(sae_folder(lane))
    return DictionaryInputs(
        model=model.name,
        model_version=model.version,
        sae=subject_encoder(SparseAutoencoder.load(folder, sae_version), model.interests),
        shards=CollectedShards(context.workspace, lane, parts),
        histories=data.histories,
        pseudonyms=data.dataset.users.ids,
        item_ids=items.ids,
        titles=items.titles,
        facets=build_facets(items, data.histories, together=_sae_users(data)),
        embed=embedder(context, model, data),
        max_history=model.described_history,
        item_vectors=_item_vectors(context, model, data),
        previous=None if lane.prefix else dictionary_before(context),
        control=control,
        rows_per_part=lane.rows_per_part or ROWS_PER_PART,
        evidence=partial(merged_evidence, context, lane, *parts) if has_evidence(context, lane) else None,
        scores=pooled_scores(load_weights(folder).scores, model.dim, model.interests),
        rank=_ranker(context, model, data) if can_difference(context, model) else None,
        reads_history=not model.ignores_history,
        names_users=not model.reads_history_alone,
    )


def _sae_users(data: RunData) -> Histories:
    """Histories of the SAE's users: groups of items are learnt from them, and labels are tested on others."""
    kept = split_users(data.dataset.users.ids) == UserPart.SAE
    return data.histories.keep(kept[data.histories.users])


def published_sae(context: StepContext) -> str:
    """Version of the SAE the evaluate stage published."""
    return str(read_facts(context.workspace, "evaluate")["sae_version"])


def _ranker(context: StepContext, model: SourceModel, data: RunData) -> Rank:
    """Lists for activations, through the recommender; items the data set does not know take the last place's score."""
    length = min(_LISTED, model.item_count or data.dataset.items.count)
    index = {item_id: number for number, item_id in enumerate(data.dataset.items.ids, start=1)}

    def rank(x: NDArray[np.float32]) -> ScoredLists:
        items, scores = np.zeros((len(x), length), np.int32), np.zeros((len(x), length), np.float32)
        for begin in range(0, len(x), _RANKED_AT_ONCE):
            context.lease.check()
            rows = x[begin : begin + _RANKED_AT_ONCE]
            vectors = single_vectors(rows, model.dim, model.interests)
            for row, ranked in enumerate(context.platform.source.rank(model, vectors, length, [()] * len(rows)), begin):
                items[row] = [index.get(item_id, 0) for item_id in ranked.item_ids]
                scores[row] = ranked.scores
        return ScoredLists(items, scores)

    return rank


def _item_vectors(context: StepContext, model: SourceModel, data: RunData) -> NDArray[np.float32] | None:
    """Vectors of the data set's items, float32 [n_items + 1, d], row 0 = padding."""
    exported = context.platform.source.item_vectors(model)
    if exported is None:
        return None
    row_of = {item_id: row for row, item_id in enumerate(exported.item_ids)}
    if unknown := [item_id for item_id in data.dataset.items.ids if item_id not in row_of]:
        raise FailedPreconditionError(
            f"model {model.name} has no vectors of {len(unknown)} items that it knew when the run began, e.g. "
            f"{unknown[0]!r}; start a new run"
        )
    vectors = exported.vectors[[row_of[item_id] for item_id in data.dataset.items.ids]]
    return np.concatenate([np.zeros((1, model.dim), np.float32), vectors]).astype(np.float32)
