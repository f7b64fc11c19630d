"""Users by the pseudonyms that artifacts know them by, for a server that holds the key.

A model's user table and a data set hold pseudonyms; live requests name users. Not here: what a pseudonym is
(`recsae.store.pseudonyms`).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

from recsae.store.histories import HistoryStore
from recsae.store.pseudonyms import pseudonym

Aside = Callable[[Callable[[str], str], str], str]
"""Calls a function with an argument where it may take its time, and returns its result."""

_PSEUDONYM = re.compile(r"[0-9a-f]{16}")
_PAGE = 4_096
# A user who came after the index was made is found this much later at the latest.
_REBUILT_EVERY_S = 600.0


class PseudonymousUsers:
    """Both directions, under one key. Safe to call from several threads."""

    def __init__(
        self,
        store: HistoryStore | None,
        key: bytes,
        clock: Callable[[], float] = time.monotonic,
        aside: Aside = lambda find, hidden: find(hidden),
    ) -> None:
        """`store` lists the users there are; an empty key makes every answer "". What has to wait is done `aside`."""
        self._store, self._key, self._clock, self._aside = store, key, clock, aside
        self._user_of: dict[str, str] = {}
        self._made_at = -_REBUILT_EVERY_S
        self._lock = threading.Lock()

    def of(self, user_id: str) -> str:
        """The pseudonym of a user; "" without a key."""
        return pseudonym(self._key, user_id) if self._key and user_id else ""

    def behind(self, hidden: str) -> str:
        """The user of the store a pseudonym stands for; "" when there is none.

        All users are hashed on the first call (about 2 us each), and again when one is missed, every ten minutes.
        """
        if not self._key or self._store is None or not _PSEUDONYM.fullmatch(hidden):
            return ""
        # A lock held by a call that is parked would stop the thread it shares with the one that is to resume it.
        return self._user_of.get(hidden) or self._aside(self._found, hidden)

    def _found(self, hidden: str) -> str:
        with self._lock:
            due = self._clock() - self._made_at >= _REBUILT_EVERY_S
            if self._store is not None and due and hidden not in self._user_of:
                self._made_at = self._clock()  # first, so that a store that fails is not asked again at once
                self._user_of = self._index(self._store)
            return self._user_of.get(hidden, "")

    def _index(self, store: HistoryStore) -> dict[str, str]:
        index: dict[str, str] = {}
        cursor = ""
        while True:
            page = store.users(cursor, _PAGE)
            index.update((self.of(user_id), user_id) for user_id in page.user_ids)
            cursor = page.next_cursor
            if not cursor:
                return index
