"""Made-up subjects for a model described: what its trunk could be asked, drawn with a seed. Pure numpy.

For tracing graphs and for comparing two ways to compute one model. Not here: real inputs (`runtime`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.recommenders.description import AttributeInput, BundleDescription

Feed = Mapping[str, NDArray[Any]]


def made_up_feed(description: BundleDescription, count: int, random: np.random.Generator) -> Feed:
    """`count` subjects (pairs of subject and candidate for a pair hook) by name of the trunk's inputs, in their order.

    history int64 [count, max_history], user int64 [count], attribute.NAME int64 or float32 [count], candidate int64
    [count]. Unknown users and values occur, and empty histories where the model answers them.
    """
    inputs, feed = description.inputs, dict[str, NDArray[Any]]()
    if inputs.history:
        shortest = 0 if inputs.empty_history else 1
        lengths = random.integers(shortest, description.max_history + 1, size=count)
        items = random.integers(1, description.n_items + 1, size=(count, description.max_history))
        feed["history"] = np.where(np.arange(description.max_history) < lengths[:, None], items, 0)
    if inputs.user:
        feed["user"] = random.integers(0, description.n_users + 1, size=count)
    feed |= {f"attribute.{one.name}": _values(one, count, random) for one in inputs.attributes}
    if description.hooks[0].rows == "pair":
        feed["candidate"] = random.integers(1, description.n_items + 1, size=count)
    return feed


def _values(attribute: AttributeInput, count: int, random: np.random.Generator) -> NDArray[Any]:
    if attribute.kind == "number":
        return random.normal(attribute.default, 1.0, size=count).astype(np.float32)
    return random.integers(0, len(attribute.values) + 1, size=count)
