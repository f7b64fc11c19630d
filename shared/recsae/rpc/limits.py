"""How much one call of the exporter contract may ask for, and the pages and cursors of long listings.

The numbers are the contract's (protos/recsae/v1/recommender.proto). A cursor is the place of the next entry.
"""

from __future__ import annotations

from dataclasses import dataclass

from recsae.errors import DeadlineExceededError, InvalidRequestError
from recsae.rpc.deadline import Deadline

MOST_SUBJECTS = 4_096
MOST_HISTORY = 10_000
MOST_ATTRIBUTES = 64
MOST_ITEM_IDS = 10_000
MOST_PAIRED = 1_000
DEFAULT_USERS, MOST_USERS = 512, 4_096
DEFAULT_ITEMS, MOST_ITEMS = 4_096, 65_536
DEFAULT_K, MOST_K = 10, 1_000
MOST_LISTS, MOST_RANK_ROWS = 1_024, 262_144
_MOST_ROWS = 65_536
# Half of the default message limit; the subjects of the rows take the rest.
_MOST_BYTES = 32 << 20


def most_rows(dim: int) -> int:
    """Most activation rows in one answer: fewer the longer an activation is, so that it fits a message."""
    return max(1, min(_MOST_ROWS, _MOST_BYTES // (4 * dim)))


def at_most(count: int, most: int, what: str) -> None:
    """InvalidRequestError when there are more than `most`."""
    if count > most:
        raise InvalidRequestError(f"{count} {what} came; send at most {most}")


def list_length(k: int) -> int:
    """The list length asked for, 0 = 10; InvalidRequestError above 1,000."""
    if k > MOST_K:
        raise InvalidRequestError(f"k = {k}; ask for at most {MOST_K}")
    return k or DEFAULT_K


def check_time(deadline: Deadline) -> None:
    """DeadlineExceededError once the caller's time is over: between two runs of the model."""
    if deadline.expired:
        raise DeadlineExceededError("the time given to this call ran out; ask for less or give it longer")


@dataclass(frozen=True)
class Page:
    """A page asked for; limit 0 = the listing's default."""

    cursor: str = ""
    limit: int = 0


@dataclass(frozen=True)
class Span:
    """Places `first` to `last` (exclusive) of a listing, and the cursor of what follows ("" = nothing)."""

    first: int
    last: int
    next_cursor: str


def page_length(page: Page, default: int, most: int) -> int:
    """Entries asked for; InvalidRequestError above `most`."""
    limit = page.limit or default
    if limit > most:
        raise InvalidRequestError(f"limit = {limit}; ask for at most {most}")
    return limit


def span(page: Page, total: int, *, default: int, most: int, room: int) -> Span:
    """Entries of a page: at most its limit, and at most `room`; InvalidRequestError for a wrong limit or cursor."""
    limit = page_length(page, default, most)
    # Longer than any place could be: int() would take its time.
    if page.cursor and not (page.cursor.isascii() and page.cursor.isdigit() and len(page.cursor) <= 18):
        raise InvalidRequestError(f"cursor {page.cursor[:40]!r} is none of this server's; start again without one")
    first = min(int(page.cursor or 0), total)
    last = min(first + max(1, min(limit, room)), total)
    return Span(first, last, str(last) if last < total else "")
