"""A recommender that holds the key knows users by pseudonym."""

from __future__ import annotations

from recsae.store.histories import MemoryHistoryStore
from recsae.store.pseudonyms import pseudonym
from recsae_recommender.pseudonymous_users import PseudonymousUsers

KEY = b"k" * 32


class Clock:
    """Stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_user_behind_a_pseudonym_is_found_and_nobody_without_the_key() -> None:
    store = MemoryHistoryStore()
    for number in range(5):
        store.append(f"user-{number}", ["i1"])
    users = PseudonymousUsers(store, KEY)
    assert users.behind(pseudonym(KEY, "user-3")) == "user-3"
    assert users.of("user-3") == pseudonym(KEY, "user-3")
    assert users.behind("user-3") == "", "a user's own id is no pseudonym"
    assert users.behind(pseudonym(b"other", "user-3")) == ""
    assert PseudonymousUsers(store, b"").behind(pseudonym(KEY, "user-3")) == ""
    assert PseudonymousUsers(None, KEY).behind(pseudonym(KEY, "user-3")) == ""


def test_a_user_who_came_later_is_found_after_a_while_and_not_looked_for_all_the_time() -> None:
    store, clock = MemoryHistoryStore(), Clock()
    store.append("early", ["i1"])
    users = PseudonymousUsers(store, KEY, clock)
    assert users.behind(pseudonym(KEY, "late")) == ""
    store.append("late", ["i1"])
    assert users.behind(pseudonym(KEY, "late")) == ""
    clock.now = 601.0
    assert users.behind(pseudonym(KEY, "late")) == "late"
