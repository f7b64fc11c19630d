"""Histories and users to activations, through the recommender: what stages ask of it besides collecting."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.evidence import Embed
from recsae.pipeline.sources import Floats, SourceModel, Subject
from recsae.pipeline.stages.run_data import RunData
from recsae.pipeline.stages.user_rows import item_vectors
from recsae.pipeline.steps import StepContext

_EMBEDDED_AT_ONCE = 2_048


def embedder(context: StepContext, model: SourceModel, data: RunData) -> Embed:
    """Histories and users to their last activation, through the recommender.

    Of a model that knows users by their id alone, the user's own, whatever the history; an item's where it is one.
    """
    source = context.platform.source

    def read(subjects: Sequence[Subject]) -> Floats:
        parts = [np.zeros((0, model.row_length), np.float32)]
        for begin in range(0, len(subjects), _EMBEDDED_AT_ONCE):
            context.lease.check()
            parts.append(source.last_position(model, subjects[begin : begin + _EMBEDDED_AT_ONCE]))
        return np.concatenate(parts)

    @cache
    def of_items() -> Floats:
        return item_vectors(source, model, data)

    def embed(histories: Sequence[NDArray[np.int32]], users: NDArray[np.int32]) -> Floats:
        whose = users.tolist()
        if not model.row_per_user:
            return read([data.subject(user, items) for user, items in zip(whose, histories, strict=True)])
        is_item = users >= data.first_item_subject
        x = np.empty((len(users), model.row_length), np.float32)
        if is_item.any():
            x[is_item] = of_items()[users[is_item] - data.first_item_subject]
        x[~is_item] = read([data.someone(int(user)) for user in users[~is_item]])
        return x

    return embed
