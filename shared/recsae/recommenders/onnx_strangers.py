"""What a model that knows users by their index alone says to strangers: the mean of those it knows.

A graph has no row for a user it was not trained with, or one that was never trained.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.recommenders.inputs import ModelInputs
from recsae.recommenders.onnx_head import ACTIVATION
from recsae.recommenders.onnx_trunk import TrunkParts
from recsae.recommenders.runtime import OnnxRecommender

_USERS_AT_ONCE = 1_024


def for_strangers(parts: TrunkParts) -> TrunkParts:
    """The same trunk, reading somebody it knows in place of a stranger: what comes out is replaced anyway."""
    return replace(parts, how=replace(parts.how, unknown_user=parts.how.first_user))


def mean_user(recommender: OnnxRecommender) -> dict[str, NDArray[Any]]:
    """By output: the mean activation of all users, without the batch."""
    n_users, hooks = recommender.bundle.description.n_users, recommender.hooks
    sums: dict[str, NDArray[Any]] = {}
    for start in range(1, n_users + 1, _USERS_AT_ONCE):
        users = np.arange(start, min(start + _USERS_AT_ONCE, n_users + 1))
        inputs = ModelInputs(np.zeros((len(users), recommender.max_history), np.int64), users)
        for at, hook in enumerate(hooks):
            name = ACTIVATION if at == 0 else f"activation.{hook.name}"
            part = embedded(recommender, inputs, hook.name).sum(axis=0, dtype=np.float64)
            sums[name] = sums.get(name, 0.0) + part
    return {name: (total / n_users).astype(np.float32) for name, total in sums.items()}


def embedded(recommender: OnnxRecommender, inputs: ModelInputs, hook: str = "") -> NDArray[np.float32]:
    """Activations of a model tried for the first time; InvalidRequestError with what may be wrong when it fails."""
    try:
        return recommender.embed(inputs, hook=hook).activation
    except InvalidRequestError:
        raise
    except Exception as error:  # onnxruntime raises its own classes straight from Exception
        raise InvalidRequestError(
            f"the graph fails on items 1..{recommender.n_items} and users 1..{recommender.bundle.description.n_users}: "
            f"{error}. If it counts from 0, say --first-index 0 or --first-user 0; if it knows fewer, shorten the lists"
        ) from error
