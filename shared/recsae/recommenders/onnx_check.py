"""Compares a bundle made from a foreign graph with the graph itself, score by score, before anything is masked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from recsae.errors import InvalidRequestError
from recsae.recommenders.inputs import Ints, ModelInputs, made_up_inputs, model_inputs
from recsae.recommenders.onnx_head import Columns
from recsae.recommenders.onnx_inputs import original_feed
from recsae.recommenders.onnx_observing import run_once
from recsae.recommenders.onnx_study import Study
from recsae.recommenders.runtime import OnnxRecommender

# Relative to the largest score. float32 graphs sum in another order at most; in float16 (11 significant bits) the cut
# rounds where onnxruntime kept float32 between operators, once for the activation and once per score: 5e-4 was seen.
_TOLERANCE, _HALF_TOLERANCE = 1e-5, 1e-2
_MOST_ROWS, _FEWEST_ROWS = 256, 4
_MOST_SCORES = 1 << 24


@dataclass(frozen=True)
class RealSubjects:
    """Histories of item indices, oldest first, and the ids of their users as the bundle knows them."""

    histories: Sequence[NDArray[np.integer]]
    users: Sequence[str]


@dataclass(frozen=True)
class Agreement:
    """How far trunk and head together are from the original, relative to its largest score."""

    rows: int
    real: bool
    bit_equal: bool
    difference: float

    def __str__(self) -> str:
        what = "histories of the data set" if self.real else "made-up subjects"
        how = "bit for bit" if self.bit_equal else f"within {self.difference:.1e} of the largest score"
        return f"trunk and head together give the scores of the original on {self.rows} {what}, {how}"


def rows_to_check(n_items: int) -> int:
    """Subjects to compare on: as many as memory for all their scores allows."""
    return int(np.clip(_MOST_SCORES // n_items, _FEWEST_ROWS, _MOST_ROWS))


def compare(
    study: Study, recommender: OnnxRecommender, columns: Columns | None, real: RealSubjects | None
) -> Agreement:
    """Scores of both on the same subjects; InvalidRequestError says where they differ and by how much.

    `columns` is None for a model of pairs, which is given random candidates.
    """
    inputs = _subjects(study, recommender, real)
    random = np.random.default_rng(1)
    asked = random.integers(1, recommender.n_items + 1, size=len(inputs)) if columns is None else None
    if asked is not None:
        asked[0] = recommender.n_items
    try:
        expected = run_once(study.original, study.scores, original_feed(study.roles, study.how, inputs, asked))
    except InvalidRequestError as error:
        raise InvalidRequestError(
            f"{error}. It was asked about items 1..{recommender.n_items}: if it counts them from 0, say "
            "--first-index 0; if it knows fewer, shorten the list of items (and likewise users, --first-user 0)"
        ) from error
    found = _scores(recommender, inputs, asked)
    if columns is not None:
        expected = expected[:, columns.first : columns.first + columns.n_items]
    expected = expected.reshape(found.shape).astype(np.float32)
    return _judged(study, found, expected, real is not None)


def _judged(study: Study, found: NDArray[np.float32], expected: NDArray[np.float32], real: bool) -> Agreement:
    if np.isnan(expected).any():
        raise InvalidRequestError(
            f"the original gives scores that are not numbers for {int(np.isnan(expected).any(axis=-1).sum())} of "
            f"{len(expected)} subjects; it may pad or count otherwise: --padding, --first-index, --padding-index"
        )
    finite = np.isfinite(expected)
    scale = float(np.abs(expected[finite]).max(initial=np.finfo(np.float32).tiny))
    difference = np.where(found == expected, 0.0, np.abs(found - expected)) / scale
    half = any(seen.element == TensorProto.FLOAT16 for seen in study.seen.values())
    tolerance = _HALF_TOLERANCE if half else _TOLERANCE
    worst = float(np.nan_to_num(difference, nan=np.inf).max())
    if not worst <= tolerance:
        row, column = np.unravel_index(int(np.nan_to_num(difference, nan=np.inf).argmax()), (*found.shape, 1)[:2])
        wrong = int((~(difference <= tolerance)).sum())
        raise InvalidRequestError(
            f"trunk and head together differ from the original: {wrong} of {found.size} scores, most at subject "
            f"{int(row)}, item {int(column) + 1}: {float(found.reshape(len(found), -1)[row, column]):.6g} instead of "
            f"{float(expected.reshape(len(found), -1)[row, column]):.6g} ({worst:.1e} of the largest, allowed are "
            f"{tolerance:.0e}); does the graph draw random numbers, or mix the rows of a batch?"
        )
    return Agreement(len(found), real, bool((found == expected).all()), worst)


def _subjects(study: Study, recommender: OnnxRecommender, real: RealSubjects | None) -> ModelInputs:
    """Real ones, or made-up ones that meet the last item and the last user."""
    count = rows_to_check(recommender.n_items)
    if real is not None:
        histories, users = list(real.histories[:count]), list(real.users[:count])
        inputs = model_inputs(recommender.bundle, histories, users if recommender.reads.user else ())
    else:
        inputs = made_up_inputs(recommender.bundle, count)
        if recommender.reads.history:
            inputs.history[0, 0] = recommender.n_items
        inputs.user[0] = recommender.bundle.description.n_users
    if recommender.reads.user and not recommender.reads.history and not recommender.reads.attributes:
        # For nobody the trunk answers with the mean user, which the original does not have.
        known = replace(inputs, user=np.where(inputs.user > 0, inputs.user, 1))
        return known
    return inputs


def _scores(recommender: OnnxRecommender, inputs: ModelInputs, asked: Ints | None) -> NDArray[np.float32]:
    """float32 [n, n_items], or [n] of one candidate each."""
    n = len(inputs)
    if asked is not None:
        embedded = recommender.embed_pairs(inputs, asked[:, None])
        one = recommender.rank(embedded.activation, embedded.passthrough, k=1, candidates=asked[:, None])
        return one.scores[:, 0]
    embedded = recommender.embed(inputs)
    ranked = recommender.rank(embedded.activation, embedded.passthrough, k=recommender.n_items)
    scores: NDArray[Any] = np.full((n, recommender.n_items), -np.inf, np.float32)
    np.put_along_axis(scores, ranked.items - 1, ranked.scores, axis=1)
    return scores
