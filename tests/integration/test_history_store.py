"""One contract, every history store; then what is particular to each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import redis

from recsae.datasets.schema import Dataset, Histories, ItemTable, UserTable, save_dataset
from recsae.errors import InvalidRequestError, UnavailableError
from recsae.store.histories import HistoryStore, MemoryHistoryStore, UserPage, open_history_store
from recsae.store.histories_file import FileHistoryStore
from recsae.store.histories_redis import RedisHistoryStore

LONGEST = 4
# "ü" sorts after every ASCII letter, by code points and by bytes.
HISTORIES = {"carol": ["d"], "alice": ["a", "b", "c"], "ünal": ["c"], "bob": ["a", "b", "c", "d", "e", "f"]}
AGES = {"alice": "31", "bob": "", "carol": "54", "ünal": "8"}
TOWNS = {"alice": "Oslo", "bob": "", "carol": "7", "ünal": "Rom"}

Open = Callable[[int], HistoryStore]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved data set of HISTORIES, AGES and TOWNS."""
    items = ("a", "b", "c", "d", "e", "f")
    users = tuple(HISTORIES)
    lengths = [len(history) for history in HISTORIES.values()]
    indices = [items.index(item) + 1 for history in HISTORIES.values() for item in history]
    histories = Histories.from_rows(
        np.repeat(np.arange(len(users)), lengths), np.array(indices), np.arange(len(indices), dtype=float), len(users)
    )
    columns = {"age": tuple(AGES[user] for user in users), "town": tuple(TOWNS[user] for user in users)}
    save_dataset(Dataset("toy", ItemTable(items, items, {}), UserTable(users, columns), histories), tmp_path / "toy")
    return tmp_path / "toy"


@pytest.fixture(params=["file", "memory", "redis"])
def store(request: pytest.FixtureRequest) -> HistoryStore:
    """Each kind of store holding HISTORIES; only the newest LONGEST items of a user are kept."""
    if request.param == "file":
        return open_history_store(f"file:{request.getfixturevalue('folder')}", longest=LONGEST)
    filled: MemoryHistoryStore | RedisHistoryStore = MemoryHistoryStore(longest=LONGEST)
    if request.param == "redis":
        filled = RedisHistoryStore(request.getfixturevalue("redis_url"), longest=LONGEST)
    for user_id, history in HISTORIES.items():
        filled.append(user_id, history)
        attributes: dict[str, str | float] = {"age": float(AGES[user_id])} if AGES[user_id] else {}
        filled.set_attributes(user_id, attributes | ({"town": TOWNS[user_id]} if TOWNS[user_id] else {}))
    return filled


def walk(store: HistoryStore, limit: int) -> list[UserPage]:
    """Every page from the first to the last."""
    pages = [store.users("", limit)]
    while pages[-1].next_cursor:
        pages.append(store.users(pages[-1].next_cursor, limit))
    return pages


def test_history_is_oldest_first_and_keeps_the_newest(store: HistoryStore) -> None:
    assert store.get("alice") == ("a", "b", "c")
    assert store.get("bob") == ("c", "d", "e", "f")


def test_unknown_user_has_no_history_and_no_attributes(store: HistoryStore) -> None:
    assert store.get("nobody") == ()
    assert store.attributes("nobody") == {}


def test_appended_items_are_the_newest(store: HistoryStore) -> None:
    store.append("alice", ["x", "y"])
    assert store.get("alice") == ("b", "c", "x", "y")
    store.append("alice", [str(number) for number in range(9)])
    assert store.get("alice") == ("5", "6", "7", "8")


def test_appending_makes_a_user(store: HistoryStore) -> None:
    store.append("newcomer", ["a"])
    assert store.get("newcomer") == ("a",)


def test_appending_nothing_changes_nothing(store: HistoryStore) -> None:
    store.append("alice", [])
    store.append("nobody", [])
    assert store.get("alice") == ("a", "b", "c")
    assert store.get("nobody") == ()
    assert "nobody" not in store.users("", 100).user_ids


@pytest.mark.parametrize(("user_id", "items"), [("", ["a"]), ("alice", ["a", ""])])
def test_an_empty_id_is_refused(store: HistoryStore, user_id: str, items: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match="empty"):
        store.append(user_id, items)
    assert store.get("alice") == ("a", "b", "c")


def test_attributes_keep_their_types_and_leave_out_what_is_empty(store: HistoryStore) -> None:
    assert store.attributes("alice") == {"age": 31.0, "town": "Oslo"}
    assert store.attributes("bob") == {}
    # A column of text stays text where a single cell looks like a number.
    assert store.attributes("carol") == {"age": 54.0, "town": "7"}


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
def test_pages_hold_every_user_once_in_order(store: HistoryStore, limit: int) -> None:
    pages = walk(store, limit)
    assert all(len(page.user_ids) <= limit for page in pages)
    assert [user for page in pages for user in page.user_ids] == ["alice", "bob", "carol", "ünal"]


def test_a_page_goes_on_from_any_of_its_users(store: HistoryStore) -> None:
    ids = store.users("", 100).user_ids
    for at, user_id in enumerate(ids):
        assert store.users(user_id, 100).user_ids == ids[at + 1 :]


def test_a_walk_is_not_upset_by_appends(store: HistoryStore) -> None:
    first = store.users("", 2)
    store.append("aaron", ["a"])
    store.append("alice", ["a"])
    rest = store.users(first.next_cursor, 100)
    assert first.user_ids + rest.user_ids == ("alice", "bob", "carol", "ünal")


def test_an_empty_page_is_refused(store: HistoryStore) -> None:
    with pytest.raises(InvalidRequestError, match="page of 0"):
        store.users("", 0)


def test_file_store_bounds_the_users_with_appended_items(folder: Path) -> None:
    store = FileHistoryStore(folder, most_tails=2)
    for user_id in ("alice", "x", "y"):
        store.append(user_id, ["f"])
    assert store.get("alice") == ("a", "b", "c")
    assert store.get("x") == store.get("y") == ("f",)


def test_file_store_never_writes(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    FileHistoryStore(folder).append("alice", ["f"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert FileHistoryStore(folder).get("alice") == ("a", "b", "c")


def test_redis_store_is_shared_bounded_and_expiring(redis_url: str, valkey: redis.Redis) -> None:
    writer = RedisHistoryStore(redis_url, longest=3, ttl_s=100)
    for first in (0, 2, 48):
        writer.append("u", [str(first), str(first + 1)])
    assert RedisHistoryStore(redis_url).get("u") == ("3", "48", "49")
    assert valkey.llen("recsae:history:u") == 3
    assert 90 < ttl(valkey, "recsae:history:u") <= 100
    valkey.expire("recsae:history:u", 10)
    RedisHistoryStore(redis_url, ttl_s=100).append("u", ["x"])
    assert 90 < ttl(valkey, "recsae:history:u") <= 100


def test_redis_store_expires_attributes_too(redis_url: str, valkey: redis.Redis) -> None:
    store = RedisHistoryStore(redis_url, ttl_s=100)
    store.set_attributes("u", {"age": 3.0})
    assert 90 < ttl(valkey, "recsae:attributes:u") <= 100
    valkey.expire("recsae:attributes:u", 10)
    store.append("u", ["x"])
    assert 90 < ttl(valkey, "recsae:attributes:u") <= 100


def test_users_whose_history_expired_leave_the_pages_and_the_index(redis_url: str, valkey: redis.Redis) -> None:
    store = RedisHistoryStore(redis_url)
    for user_id in ("a", "b", "c", "d"):
        store.append(user_id, ["x"])
    valkey.delete("recsae:history:b", "recsae:history:c")  # what expiry does
    assert [user for page in walk(store, 2) for user in page.user_ids] == ["a", "d"]
    assert valkey.zrange("recsae:history-users", 0, -1) == [b"a", b"d"]


def test_redis_away_is_unavailable_and_names_no_user() -> None:
    store = RedisHistoryStore("redis://127.0.0.1:1/0")
    calls: Mapping[str, Callable[[], object]] = {
        "get": lambda: store.get("secret-user"),
        "append": lambda: store.append("secret-user", ["secret-item"]),
        "attributes": lambda: store.attributes("secret-user"),
        "users": lambda: store.users("secret-user", 1),
    }
    for call in calls.values():
        with pytest.raises(UnavailableError, match="did not answer") as caught:
            call()
        assert "secret" not in str(caught.value)


def test_a_url_chooses_the_store(folder: Path) -> None:
    assert open_history_store(f"file://{folder}").get("carol") == ("d",)
    assert open_history_store("memory:").get("carol") == ()
    with pytest.raises(InvalidRequestError, match="'ftp' is no history store") as caught:
        open_history_store("ftp://me:password@host")
    assert "password" not in str(caught.value)


def test_reading_histories_needs_no_training_or_table_library(folder: Path) -> None:
    program = (
        "import sys\n"
        "from recsae.store.histories import open_history_store\n"
        f"assert open_history_store('file:{folder}').get('alice')\n"
        "heavy = {'torch', 'scipy', 'pyarrow', 'pandas', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def ttl(client: redis.Redis, key: str) -> int:
    """Seconds a key still has."""
    return int(str(client.ttl(key)))
