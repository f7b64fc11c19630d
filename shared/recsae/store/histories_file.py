"""Histories of a saved data set, read once. What is appended lives in memory, bounded, and ends with the process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from recsae.datasets.attributes import AttributeValue, typed_rows
from recsae.datasets.schema import load_dataset
from recsae.store.histories import LONGEST_HISTORY, UserPage, check_ids, page_of

MOST_TAILS = 100_000


class FileHistoryStore:
    """A snapshot, and on top of it what was appended for the most recently active users.

    Users who are not in the snapshot can be read while their items are held, but are on no page of `users`:
    an export from a file is the same whoever is active.
    """

    def __init__(self, folder: Path, *, longest: int = LONGEST_HISTORY, most_tails: int = MOST_TAILS) -> None:
        """Reads the folder `recsae.datasets.schema.save_dataset` wrote; `most_tails` users can have appended items."""
        dataset = load_dataset(folder)
        self._item_ids = dataset.items.ids
        self._histories = dataset.histories
        self._index = {user_id: number for number, user_id in enumerate(dataset.users.ids)}
        self._attributes = typed_rows(dataset.users.columns, len(dataset.users.ids))
        self._sorted_ids = sorted(user_id for user_id, at in self._index.items() if len(self._histories.of(at)))
        self._longest, self._most_tails = longest, most_tails
        self._tails: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, user_id: str) -> tuple[str, ...]:
        """See `HistoryStore`."""
        with self._lock:
            tail = self._tails.get(user_id, ())
        number = self._index.get(user_id)
        if number is None:
            return tail
        stored = self._histories.of(number)[-self._longest :].tolist()
        return (*(self._item_ids[item - 1] for item in stored), *tail)[-self._longest :]

    def append(self, user_id: str, item_ids: Sequence[str]) -> None:
        """See `HistoryStore`; beyond `most_tails` users, the longest inactive one falls back to the snapshot."""
        check_ids(user_id, item_ids)
        if not item_ids:
            return
        with self._lock:
            self._tails[user_id] = (*self._tails.pop(user_id, ()), *item_ids)[-self._longest :]
            if len(self._tails) > self._most_tails:
                self._tails.popitem(last=False)

    def attributes(self, user_id: str) -> Mapping[str, AttributeValue]:
        """See `HistoryStore`."""
        number = self._index.get(user_id)
        return {} if number is None else self._attributes[number]

    def users(self, cursor: str, limit: int) -> UserPage:
        """See `HistoryStore`."""
        return page_of(self._sorted_ids, cursor, limit)
