"""What scores lose when a concept is taken out of the activation: attribution for heads that are no dot product.

A subject's rows are changed together: of several interests the concept leaves all it fires in, since the head takes
the best of them. A pair is changed by itself: its item is scored from its own row. docs/method.md, section 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from recsae.errors import FailedPreconditionError
from recsae.rpc.deadline import Deadline
from recsae_interpreter.readings import Floats, HeadRows, Reading, ScoredItem
from recsae_interpreter.recommender import Recommender

# A concept as removal sees it: its value in each row it fires in, and its decoder row float32 [d].
Taken = tuple[Mapping[int, float], Floats]


def losses(
    recommender: Recommender,
    reading: Reading,
    items: Sequence[ScoredItem],
    concepts: Sequence[Taken],
    deadline: Deadline,
) -> list[dict[int, float]]:
    """For each item what its score loses without each concept, by the concept's place; of a pair those of its row."""
    if not items or not concepts:
        return [{} for _ in items]
    if reading.rows == "pair":
        return _of_pairs(recommender, reading, items, concepts, deadline)
    ids = [item.item_id for item in items]
    lists = [HeadRows.of(reading), *(_without(reading, concept, np.arange(len(reading))) for concept in concepts)]
    ranked = recommender.rank(reading, lists, k=len(ids), deadline=deadline, candidates=ids)
    scores = [_scores(one, ids) for one in ranked]
    return [
        {place: scores[0][item_id] - without[item_id] for place, without in enumerate(scores[1:])} for item_id in ids
    ]


def _of_pairs(
    recommender: Recommender,
    reading: Reading,
    items: Sequence[ScoredItem],
    concepts: Sequence[Taken],
    deadline: Deadline,
) -> list[dict[int, float]]:
    """One list holds the rows a concept fires in, so the head computes as many pairs as there are firings."""
    row_of = {item_id: row for row, item_id in enumerate(reading.item_ids)}
    wanted = np.array([row_of[item.item_id] for item in items], np.int64)
    fires = [wanted[np.isin(wanted, list(at))] for at, _ in concepts]
    changed = [place for place, rows in enumerate(fires) if len(rows)]
    lists = [
        HeadRows(reading.activations[wanted], wanted),
        *(_without(reading, concepts[place], fires[place]) for place in changed),
    ]
    ranked = recommender.rank(reading, lists, k=len(items), deadline=deadline)
    whole = _scores(ranked[0], [item.item_id for item in items])
    lost: list[dict[int, float]] = [{} for _ in items]
    order = {item.item_id: at for at, item in enumerate(items)}
    for place, one in zip(changed, ranked[1:], strict=True):
        ids = [reading.item_ids[row] for row in fires[place].tolist()]
        for item_id, score in _scores(one, ids).items():
            lost[order[item_id]][place] = whole[item_id] - score
    return lost


def _without(reading: Reading, concept: Taken, places: np.ndarray) -> HeadRows:
    at, direction = concept
    values = np.array([at.get(row, 0.0) for row in places.tolist()], np.float32)
    return HeadRows((reading.activations[places] - values[:, None] * direction).astype(np.float32), places)


def _scores(ranked: Sequence[ScoredItem], ids: Sequence[str]) -> dict[str, float]:
    scores = {item.item_id: item.score for item in ranked}
    if missing := [item_id for item_id in ids if item_id not in scores]:
        raise FailedPreconditionError(
            f"the recommender gave no score of {missing[0]!r} when asked to rank it; Rank must score every candidate"
        )
    return scores
