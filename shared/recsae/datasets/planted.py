"""A data set with known concepts, for tests with ground truth.

Each concept is a group of items that share a genre. A user likes a few concepts and stays with one for a while
(a Markov chain), so that the recent past tells what comes next and a sequence model can learn it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.schema import Dataset, Histories, ItemTable, UserTable
from recsae.errors import InvalidRequestError

_LIKED_PER_USER = 3
_ZIPF = 0.8
_NOISE = 0.05


@dataclass(frozen=True)
class Planted:
    """The data set and its truth.

    concept_of_item int64 [n_items + 1] (-1 for padding); concept_of_interaction int64 [n]: what the user was after,
    which is not the item's concept where chance chose the item; liked bool [n_users, n_concepts]; concept_names
    [n_concepts], which are the values of the items' column "genre".
    """

    dataset: Dataset
    concept_of_item: NDArray[np.int64]
    concept_of_interaction: NDArray[np.int64]
    liked: NDArray[np.bool_]
    concept_names: tuple[str, ...]


@dataclass(frozen=True)
class _Walk:
    items: NDArray[np.int64]
    concepts: NDArray[np.int64]
    liked: NDArray[np.int64]


def make_planted(
    seed: int = 0,
    n_users: int = 400,
    n_items: int = 200,
    n_concepts: int = 8,
    *,
    mean_length: int = 60,
    persistence: float = 0.85,
) -> Planted:
    """Makes `n_users` histories of about `mean_length` distinct items over `n_concepts` planted genres.

    `persistence` = chance to stay with a concept from one interaction to the next; within a concept items are drawn
    by a Zipf law. The same seed and sizes give the same data. InvalidRequestError for sizes that make none.
    """
    if n_users < 1 or not 1 <= n_concepts <= n_items:
        raise InvalidRequestError(f"{n_users} users, {n_items} items, {n_concepts} concepts: too few to make data of")
    rng = np.random.default_rng(seed)
    concept_of_item = np.concatenate([[-1], np.arange(n_items) % n_concepts])
    names = tuple(f"genre {chr(ord('A') + number % 26)}{number // 26 or ''}" for number in range(n_concepts))
    popularity = np.arange(1, n_items + 1, dtype=np.float64) ** -_ZIPF
    walks = [_walk(rng, concept_of_item, popularity, mean_length, persistence) for _ in range(n_users)]
    users = np.repeat(np.arange(n_users), [len(walk.items) for walk in walks])
    times = np.concatenate([np.arange(len(walk.items), dtype=np.float64) for walk in walks])
    histories = Histories.from_rows(users, np.concatenate([walk.items for walk in walks]), times, n_users)
    liked = np.zeros((n_users, n_concepts), dtype=bool)
    for user, walk in enumerate(walks):
        liked[user, walk.liked] = True
    items = ItemTable(
        ids=tuple(f"i{number}" for number in range(1, n_items + 1)),
        titles=tuple(f"Item {number}" for number in range(1, n_items + 1)),
        columns={
            "genre": tuple(names[concept] for concept in concept_of_item[1:]),
            "year": tuple(str(1960 + int(year)) for year in rng.integers(0, 50, n_items)),
        },
    )
    ages = tuple(str(int(age)) for age in rng.integers(16, 80, n_users))
    genders = tuple("FM"[int(bit)] for bit in rng.integers(0, 2, n_users))
    user_ids = tuple(f"u{number}" for number in range(1, n_users + 1))
    dataset = Dataset("planted", items, UserTable(user_ids, {"age": ages, "gender": genders}), histories)
    return Planted(dataset, concept_of_item, np.concatenate([walk.concepts for walk in walks]), liked, names)


def _walk(
    rng: np.random.Generator,
    concept_of_item: NDArray[np.int64],
    popularity: NDArray[np.float64],
    mean_length: int,
    persistence: float,
) -> _Walk:
    n_concepts = int(concept_of_item.max()) + 1
    liked = rng.choice(n_concepts, size=min(_LIKED_PER_USER, n_concepts), replace=False)
    free = np.ones(len(popularity), dtype=bool)
    concept, history, concepts = int(rng.choice(liked)), [], []
    for _ in range(max(5, int(rng.poisson(mean_length)))):
        if rng.random() > persistence:
            concept = int(rng.choice(liked))
        wanted = free if rng.random() < _NOISE else free & (concept_of_item[1:] == concept)
        if not wanted.any():  # the user has taken everything of this concept
            concept = int(rng.choice(liked))
            continue
        weights = np.where(wanted, popularity, 0.0)
        item = int(rng.choice(len(popularity), p=weights / weights.sum()))
        free[item] = False
        history.append(item + 1)
        concepts.append(concept)
    return _Walk(np.array(history, dtype=np.int64), np.array(concepts, dtype=np.int64), liked)
