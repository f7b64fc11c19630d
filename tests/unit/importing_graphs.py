"""Imports foreign graphs without a command, and asks what came out for all its scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.unit.foreign_graphs import N_ITEMS, N_USERS

from recsae.recommenders.onnx_candidates import suggestion
from recsae.recommenders.onnx_hooks import hook_names
from recsae.recommenders.onnx_import import Built, Names, build_bundle
from recsae.recommenders.onnx_study import Statements, study
from recsae.recommenders.runtime import OnnxRecommender

IDS = [f"i{item}" for item in range(1, N_ITEMS + 1)]
USERS = [f"u{user}" for user in range(1, N_USERS + 1)]


def imported(
    path: Path,
    stated: Statements,
    out: Path,
    activations: Sequence[str] = (),
    *,
    users: Sequence[str] = (),
    hooks: Sequence[str] = (),
    n_items: int = N_ITEMS,
) -> Built:
    """The bundle of a graph cut where it is said, or else where it is suggested."""
    studied = study(path, stated)
    chosen = suggestion(studied.candidates())
    assert chosen
    named = hook_names(list(activations) or [chosen.candidate.name], hooks)
    out.mkdir()
    return build_bundle(studied, named, Names("foreign", IDS[:n_items], IDS[:n_items], users), out)


def all_scores(recommender: OnnxRecommender, inputs: Any) -> NDArray[np.float32]:
    """float32 [n, n_items] in the order of the items."""
    embedded = recommender.embed(inputs)
    ranked = recommender.rank(embedded.activation, embedded.passthrough, k=recommender.n_items)
    scores = np.full(ranked.items.shape, np.nan, np.float32)
    np.put_along_axis(scores, ranked.items - 1, ranked.scores, axis=1)
    return scores
