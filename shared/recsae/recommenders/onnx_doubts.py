"""Doubts about how a foreign graph counts and pads: whether it would predict real histories better, read otherwise.

A wrong side or a shift by one runs without an error and ranks by nonsense. The item that comes next in a history shows
it: read rightly, a trained model ranks it far better.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.recommenders.inputs import ModelInputs, model_inputs
from recsae.recommenders.onnx_check import RealSubjects, rows_to_check
from recsae.recommenders.onnx_head import columns_of
from recsae.recommenders.onnx_inputs import Conventions, original_feed
from recsae.recommenders.onnx_observing import run_once
from recsae.recommenders.onnx_study import Study
from recsae.recommenders.runtime import OnnxRecommender

# Fewer histories, or shorter ones, say little.
_FEWEST, _SHORTEST = 20, 3
# Another reading is worth a word when the reciprocal rank grows by half and three standard errors of a sign test.
_BETTER, _SURE = 1.5, 3.0
# In an order drawn by lot the median place is half of all; a trained model's is a few per cent.
_CHANCE = 0.4


def doubts(study: Study, recommender: OnnxRecommender, real: RealSubjects) -> tuple[str, ...]:
    """A sentence per other reading that ranks next items of real histories far better; or one when all is as by chance.

    Nothing for models of pairs, and for too few or too short histories.
    """
    longer = [at for at, history in enumerate(real.histories) if len(history) >= _SHORTEST]
    longer = longer[: rows_to_check(recommender.n_items)]
    if study.pairs or len(longer) < _FEWEST:
        return ()
    starts = [_start(real.histories[at], study.how.max_history, seed=at) for at in longer]
    users = [real.users[at] for at in longer] if recommender.reads.user else ()
    inputs = model_inputs(recommender.bundle, [start[:-1] for start in starts], users)
    following = np.array([start[-1] for start in starts], np.int64)
    places = _places(study, study.how, inputs, following, recommender.n_items)
    now, n = f"{np.median(places):.0f}", len(following)
    found = []
    for option, how in _other_readings(study):
        try:
            others = _places(study, how, inputs, following, recommender.n_items)
        except InvalidRequestError:
            continue  # an index that the graph does not have
        if _far_better(others, places):
            found.append(
                f"with {option} the next items of {n} histories would rank at place {np.median(others):.0f} (median); "
                f"as the graph is read now they rank at {now}: is it read rightly?"
            )
    if not found and np.median(places) > _CHANCE * recommender.n_items:
        found.append(
            f"the next items of {n} histories rank at place {now} of {recommender.n_items} (median), no better than by "
            "chance: is the model trained, and are items and users given in the order of its indices?"
        )
    return tuple(found)


def _start(history: NDArray[np.integer], max_history: int, seed: int) -> NDArray[np.integer]:
    """The beginning of a history, short enough to leave half of the graph's places to padding, which has to show."""
    longest = max(max_history // 2 + 1, _SHORTEST)
    return history[: int(np.random.default_rng(seed).integers(_SHORTEST, longest + 1))]


def _other_readings(study: Study) -> Iterator[tuple[str, Conventions]]:
    how, kinds = study.how, {role.kind for role in study.roles}
    if "history" in kinds:
        side: Literal["left", "right"] = "left" if how.padding == "right" else "right"
        yield f"--padding {side}", replace(how, padding=side)
        yield f"--first-index {1 - how.first_item}", replace(how, first_item=1 - how.first_item)
    if "user" in kinds:
        yield f"--first-user {1 - how.first_user}", replace(how, first_user=1 - how.first_user)


def _places(
    study: Study, how: Conventions, inputs: ModelInputs, following: NDArray[np.int64], n_items: int
) -> NDArray[np.float64]:
    """Rank of each following item among all items, from 1; ties count half."""
    columns = columns_of(study.columns, n_items, how.first_item)
    scores = run_once(study.original, study.scores, original_feed(study.roles, how, inputs))
    scores = np.nan_to_num(scores[:, columns.first : columns.first + n_items], nan=-np.inf)
    own = np.take_along_axis(scores, following[:, None] - 1, axis=1)
    places: NDArray[np.float64] = 1 + (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
    return places


def _far_better(others: NDArray[np.float64], places: NDArray[np.float64]) -> bool:
    wins, losses = int((others < places).sum()), int((others > places).sum())
    sure = (wins - losses) > _SURE * np.sqrt(max(wins + losses, 1))
    return bool(sure and (1 / others).mean() > _BETTER * (1 / places).mean())
