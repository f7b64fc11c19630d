"""Histories of item indices to activations, through the recommender: what stages ask of it besides collecting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.evidence import Embed
from recsae.pipeline.sources import SourceModel
from recsae.pipeline.stages.material import RunData
from recsae.pipeline.steps import StepContext

_EMBEDDED_AT_ONCE = 2_048


def embedder(context: StepContext, model: SourceModel, data: RunData) -> Embed:
    """Histories of item indices to their last activation, through the recommender."""

    def embed(histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        parts = [np.zeros((0, model.dim), np.float32)]
        for begin in range(0, len(histories), _EMBEDDED_AT_ONCE):
            context.lease.check()
            ids = [data.item_ids(history) for history in histories[begin : begin + _EMBEDDED_AT_ONCE]]
            parts.append(context.platform.source.last_position(model, ids))
        return np.concatenate(parts)

    return embed
