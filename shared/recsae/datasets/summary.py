"""What a data set looks like in numbers, for people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsae.datasets.schema import Dataset


@dataclass(frozen=True)
class Summary:
    """Counts, shape and quirks of a data set.

    `density` = interactions / (users x items); `length_*` are interactions per user; `top_decile_share` = share of
    interactions with the most popular tenth of items; `tied_share` = share of interactions whose user has another
    one at the same timestamp, where the order of the file decides; `first_at`, `last_at` in the source's unit.
    """

    name: str
    fingerprint: str
    users: int
    items: int
    interactions: int
    density: float
    length_min: int
    length_median: float
    length_max: int
    top_decile_share: float
    tied_share: float
    repeated_titles: int
    first_at: float
    last_at: float
    item_columns: tuple[str, ...]
    user_columns: tuple[str, ...]


def summarise(dataset: Dataset) -> Summary:
    """Summary of a data set with at least one interaction."""
    histories, titles = dataset.histories, dataset.items.titles
    count = len(histories.items)
    popularity = np.sort(np.bincount(histories.items, minlength=dataset.items.count + 1)[1:])[::-1]
    return Summary(
        name=dataset.name,
        fingerprint=dataset.fingerprint(),
        users=histories.n_users,
        items=dataset.items.count,
        interactions=count,
        density=count / (histories.n_users * dataset.items.count),
        length_min=int(histories.lengths.min()),
        length_median=float(np.median(histories.lengths)),
        length_max=int(histories.lengths.max()),
        top_decile_share=float(popularity[: max(1, len(popularity) // 10)].sum() / count),
        tied_share=_tied_share(dataset),
        repeated_titles=len(titles) - len(set(titles)),
        first_at=float(histories.timestamps.min()),
        last_at=float(histories.timestamps.max()),
        item_columns=tuple(dataset.items.columns),
        user_columns=tuple(dataset.users.columns),
    )


def _tied_share(dataset: Dataset) -> float:
    users, times = dataset.histories.users, dataset.histories.timestamps
    same = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    tied = np.zeros(len(users), dtype=bool)
    tied[1:] |= same
    tied[:-1] |= same
    return float(tied.mean())
