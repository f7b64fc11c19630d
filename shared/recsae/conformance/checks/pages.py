"""Pages of items and users: by cursor every one comes once, and a page can be asked for again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from recsae.conformance.asking import UNIMPLEMENTED, RefusedError
from recsae.conformance.outcomes import BrokenError, Check, NotApplicableError
from recsae.conformance.probe import Probe
from recsae.v1 import common_pb2, recommender_pb2
from recsae.v1.recommender_pb2 import ExportActivationsResponse

_PAGE = 4_096
_MOST_PAGES = 1_000
_USER_PAGES = 8
_LARGEST_ITEM_PAGE = 65_536
# Nobody has it, so nobody is in the segment of those who have.
_UNHEARD_OF = "recsae-conformance-attribute-nobody-has"


def first(probe: Probe) -> str:
    """There are items to ask for."""
    return f"{len(probe.item_ids)} of {probe.info.item_count} items on the first page"


def items(probe: Probe) -> str:
    """Every item once."""
    limit = page_size(probe)
    ids: list[str] = []
    pages = 0
    for pages, answer in enumerate(_walk(lambda cursor: _items(probe, cursor, limit), "items"), start=1):
        ids += [row.item_id for row in answer.batch.subjects[:: probe.rows_per_subject]]
        if pages >= _MOST_PAGES:
            break
    else:
        check_cover(probe, ids, f"pages of {limit} items until next_cursor is empty")
    check_once(ids, f"{pages} pages of {limit} items")
    return f"{len(ids)} items in {pages} pages"


def resumable(probe: Probe) -> str:
    """A cursor gives the same page again."""
    limit = max(1, min(page_size(probe), probe.info.item_count // 2))
    cursor = _items(probe, "", limit).next_cursor
    if not cursor:
        raise NotApplicableError("all items fit a page")
    one, again = _items(probe, cursor, limit), _items(probe, cursor, limit)
    if one.batch != again.batch or one.next_cursor != again.next_cursor:
        asked = f"items from cursor {cursor!r}, twice"
        raise BrokenError(asked, "different pages", "let a cursor say where it goes on; keep no state per caller")
    return ""


def limit(probe: Probe) -> str:
    """A page holds no more than was asked for, and no answer more than max_export_rows."""
    few = _items(probe, "", 3).batch.subjects
    if len(few) > 3 * probe.rows_per_subject:
        raise BrokenError("a page of 3 items", f"{len(few)} rows", "send at most `limit` items")
    most = _items(probe, "", _LARGEST_ITEM_PAGE).batch.subjects
    if len(most) > probe.most_rows:
        came = f"{len(most)} rows, max_export_rows is {probe.most_rows}"
        raise BrokenError(
            f"a page of {_LARGEST_ITEM_PAGE} items", came, "end the page at max_export_rows and send a cursor"
        )
    return ""


def users(probe: Probe) -> str:
    """Every user once, named."""
    ids: list[str] = []
    most = min(512, probe.most_rows)

    def page(cursor: str) -> ExportActivationsResponse:
        return probe.export(users=recommender_pb2.UserPage(cursor=cursor, limit=most))

    pages = 0
    try:
        for pages, answer in enumerate(_walk(page, "users"), start=1):
            rows = answer.batch.subjects[:: probe.rows_per_subject]
            if len(rows) > most:
                raise BrokenError(f"a page of {most} users", f"{len(rows)} users", "send at most `limit` users")
            ids += [row.user_id for row in rows]
            if pages == _USER_PAGES:
                break
    except RefusedError as refusal:
        if refusal.code not in (UNIMPLEMENTED, "FAILED_PRECONDITION"):
            raise
        raise NotApplicableError(f"no history store: {refusal.code}") from refusal
    check_once(ids, f"{pages} pages of users")
    return f"{len(ids)} users in {pages} pages"


def segment(probe: Probe) -> str:
    """Nobody of a segment nobody is in: who ignores it would have everybody steered for a few."""
    nobody = common_pb2.Segment(exists=common_pb2.SegmentExists(attribute=_UNHEARD_OF))
    try:
        probe.export(users=recommender_pb2.UserPage(limit=1))
    except RefusedError as refusal:
        raise NotApplicableError(f"no history store: {refusal.code}") from refusal
    try:
        rows = probe.export(users=recommender_pb2.UserPage(limit=16, segment=nobody)).batch.subjects
    except RefusedError as refusal:
        if refusal.code not in (UNIMPLEMENTED, "FAILED_PRECONDITION"):
            raise
        return f"refused: {refusal.code}"
    if rows:
        raise BrokenError(
            "users who have an attribute nobody has",
            f"{len(rows)} users",
            "send only users whose stored attributes match users.segment, or refuse it with FAILED_PRECONDITION",
        )
    asked = "users of a segment with an empty node"
    nothing = common_pb2.Segment(all=common_pb2.SegmentList())
    try:
        probe.export(users=recommender_pb2.UserPage(limit=1, segment=nothing))
    except RefusedError as refusal:
        if refusal.code == "INVALID_ARGUMENT":
            return ""
        raise BrokenError(asked, refusal.code, "refuse a segment you cannot read with INVALID_ARGUMENT") from refusal
    raise BrokenError(asked, "an answer", "refuse a segment you cannot read with INVALID_ARGUMENT")


def page_size(probe: Probe) -> int:
    """Items per page that fit an answer."""
    return max(1, min(_PAGE, probe.most_rows // probe.rows_per_subject))


def check_once(ids: list[str], asked: str) -> None:
    """`BrokenError` when an id is missing or comes twice."""
    if "" in ids:
        raise BrokenError(asked, f"row {ids.index('')} without an id", "name the item or user of every row")
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(one for one in ids if one in seen or seen.add(one))  # type: ignore[func-returns-value]
        raise BrokenError(asked, f"{twice!r} twice", "let next_cursor go on behind the last row of the page")


def check_cover(probe: Probe, ids: list[str], asked: str) -> None:
    """`BrokenError` unless there are as many ids as the model has items."""
    if len(set(ids)) != probe.info.item_count:
        came = f"{len(set(ids))} items, item_count is {probe.info.item_count}"
        raise BrokenError(asked, came, "page through all items the model can return")


def _items(probe: Probe, cursor: str, most: int) -> ExportActivationsResponse:
    try:
        return probe.export(items=recommender_pb2.ItemPage(cursor=cursor, limit=most))
    except RefusedError as refusal:
        if not probe.info.ignores_history or refusal.code not in (UNIMPLEMENTED, "FAILED_PRECONDITION"):
            raise
        raise NotApplicableError("the model reads no history, and its items have no vectors") from refusal


def _walk(page: Callable[[str], ExportActivationsResponse], what: str) -> Iterator[ExportActivationsResponse]:
    """Pages to the last; `BrokenError` when a cursor comes back."""
    cursor = ""
    seen = {cursor}
    while True:
        answer = page(cursor)
        yield answer
        cursor = answer.next_cursor
        if not cursor:
            return
        if cursor in seen:
            raise BrokenError(
                f"{what} page by page", f"cursor {cursor!r} a second time", "let each cursor go on further"
            )
        seen.add(cursor)


FIRST = (Check("model.items", "a page of items names its items", first, ("model.hooks", "model.limits")),)
_NEEDS = ("model.items",)
CHECKS = (
    Check("pages.items", "by cursor every item comes once, item_count in all", items, _NEEDS),
    Check(
        "pages.resumable", "a cursor gives the same page again", resumable, ("activations.repeatable", "pages.items")
    ),
    Check("pages.limit", "a page keeps to its limit and to max_export_rows", limit, _NEEDS),
    Check("pages.users", "by cursor every user comes once, where users are kept", users, _NEEDS),
    Check("pages.segment", "a segment of users is kept to, or refused", segment, _NEEDS),
)
