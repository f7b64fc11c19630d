"""A data set with known concepts, for tests with ground truth.

Each concept is a group of items that share a genre. A user likes a few concepts and stays with one for a while
(a Markov chain), so that the recent past tells what comes next and a sequence model can learn it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.schema import Dataset, Histories, ItemTable, UserTable

_LIKED_PER_USER = 3
_ZIPF = 0.8
_NOISE = 0.05


@dataclass(frozen=True)
class Planted:
    """The data set and its truth: concept_of_item int64 [n_items + 1] (-1 for padding), names [n_concepts]."""

    dataset: Dataset
    concept_of_item: NDArray[np.int64]
    concept_names: tuple[str, ...]


def make_planted(
    seed: int = 0,
    n_users: int = 400,
    n_items: int = 200,
    n_concepts: int = 8,
    *,
    mean_length: int = 60,
    persistence: float = 0.85,
) -> Planted:
    """Makes `n_users` histories of about `mean_length` distinct items over `n_concepts` planted genres."""
    rng = np.random.default_rng(seed)
    concept_of_item = np.concatenate([[-1], np.arange(n_items) % n_concepts])
    names = tuple(f"genre {chr(ord('A') + number % 26)}{number // 26 or ''}" for number in range(n_concepts))
    popularity = np.arange(1, n_items + 1, dtype=np.float64) ** -_ZIPF
    rows = [_history(rng, concept_of_item, popularity, mean_length, persistence) for _ in range(n_users)]
    users = np.repeat(np.arange(n_users), [len(row) for row in rows])
    times = np.concatenate([np.arange(len(row), dtype=np.float64) for row in rows])
    histories = Histories.from_rows(users, np.concatenate(rows), times, n_users)
    items = ItemTable(
        ids=tuple(f"i{number}" for number in range(1, n_items + 1)),
        titles=tuple(f"Item {number}" for number in range(1, n_items + 1)),
        columns={
            "genre": tuple(names[concept] for concept in concept_of_item[1:]),
            "year": tuple(str(1960 + int(year)) for year in rng.integers(0, 50, n_items)),
        },
    )
    ages = tuple(str(int(age)) for age in rng.integers(16, 80, n_users))
    user_table = UserTable(tuple(f"u{number}" for number in range(1, n_users + 1)), {"age": ages})
    return Planted(Dataset("planted", items, user_table, histories), concept_of_item, names)


def _history(
    rng: np.random.Generator,
    concept_of_item: NDArray[np.int64],
    popularity: NDArray[np.float64],
    mean_length: int,
    persistence: float,
) -> NDArray[np.int64]:
    n_concepts = int(concept_of_item.max()) + 1
    liked = rng.choice(n_concepts, size=min(_LIKED_PER_USER, n_concepts), replace=False)
    free = np.ones(len(popularity), dtype=bool)
    concept, history = int(rng.choice(liked)), []
    for _ in range(max(5, int(rng.poisson(mean_length)))):
        if rng.random() > persistence:
            concept = int(rng.choice(liked))
        wanted = free if rng.random() < _NOISE else free & (concept_of_item[1:] == concept)
        if not wanted.any():
            concept = int(rng.choice(liked))
            continue
        weights = np.where(wanted, popularity, 0.0)
        item = int(rng.choice(len(popularity), p=weights / weights.sum()))
        free[item] = False
        history.append(item + 1)
    return np.array(history, dtype=np.int64)
