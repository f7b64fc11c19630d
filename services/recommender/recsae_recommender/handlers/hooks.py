"""Names of hooks in requests. A bundle's graphs compute one hook today; others are refused by name."""

from __future__ import annotations

from recsae.errors import NotFoundError
from recsae.recommenders.description import Hook
from recsae.recommenders.runtime import OnnxRecommender


def check_hook(recommender: OnnxRecommender, name: str) -> Hook:
    """The hook of that name, or the model's first for ""; NotFoundError when it has no such hook."""
    first = recommender.hooks[0]
    if name not in ("", first.name):
        raise NotFoundError(f"model {recommender.name} has no hook {name!r}; it has {first.name!r}")
    return first
