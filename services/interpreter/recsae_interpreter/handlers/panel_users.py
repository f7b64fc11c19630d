"""Whom a panel is of: users named, users of a segment, or users of the recommender's store as it lists them.

Segments are judged where attributes are kept: they travel there, and the attributes never travel here. Not here: what
is tried on them (`preview_panel`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace

from recsae.errors import FailedPreconditionError, InvalidRequestError, NotFoundError
from recsae.rpc.deadline import Deadline
from recsae.steering.segments import AllOf, Segment, validate_segment
from recsae_interpreter.handlers.compare import check_version
from recsae_interpreter.loading import LoadedTriple
from recsae_interpreter.readings import Reading, Subject, UserPage
from recsae_interpreter.recommender import Recommender

MOST_USERS = 2_000
DEFAULT_USERS = 200
LEAST_USERS = 2
# A rare segment of a large store: a quarter of a million users are looked at, then those found have to do.
_MOST_PAGES = 64
# Stored users are embedded one by one; a few at a time hide the round trips and leave the recommender room for others.
_USERS_AT_ONCE = 8
_READINGS_AT_ONCE = 128
# Items of histories in one call: half a megabyte or so.
_ITEMS_AT_ONCE = 50_000


@dataclass(frozen=True)
class Who:
    """Users named (None = none are), or those of a segment (None = of the whole store).

    At most `most` of them, 0 = everybody named, else 200.
    """

    user_ids: tuple[str, ...] | None = None
    segment: Segment | None = None
    most: int = 0


def check_who(who: Who) -> None:
    """InvalidRequestError for a panel that is too small or too large, or names a user twice."""
    asked = [
        count for count in (who.most or None, None if who.user_ids is None else len(who.user_ids)) if count is not None
    ]
    if any(not LEAST_USERS <= count <= MOST_USERS for count in asked):
        raise InvalidRequestError(
            f"{min(asked) if min(asked) < LEAST_USERS else max(asked):,} users were asked for; a panel takes "
            f"{LEAST_USERS} to {MOST_USERS:,}"
        )
    named = who.user_ids or ()
    repeated = len(named) - len(set(named))
    if repeated or not all(named):
        what = f"names {repeated} users twice" if repeated else "holds an empty user id"
        raise InvalidRequestError(f"the panel {what}; name each user once")
    if who.segment is not None:
        validate_segment(who.segment)


class PanelUsers:
    """Finds the users of a panel and reads them."""

    def __init__(
        self, recommender: Recommender, loaded: LoadedTriple, deadline: Deadline, reading_segments: set[str]
    ) -> None:
        """Of one model version; every call ends with `deadline`.

        `reading_segments`: model versions whose recommender is known to read segments; it grows.
        """
        self._recommender, self._loaded, self._deadline = recommender, loaded, deadline
        self._reading_segments = reading_segments

    def readings(self, who: Who) -> Iterator[list[Reading]]:
        """All users in batches of bounded size, users who are gone since they were listed left out.

        NotFoundError for a user named whom the recommender does not know, FailedPreconditionError when fewer than two
        are found.
        """
        named = who.user_ids is not None
        user_ids = list(who.user_ids[: who.most or None]) if who.user_ids is not None else self._listed(who)
        if len(user_ids) < LEAST_USERS:
            where = "match the segment" if who.segment is not None else "are in the recommender's history store"
            raise FailedPreconditionError(
                f"{len(user_ids)} users {where}; a panel needs {LEAST_USERS}: widen it, or name users"
            )
        with ThreadPoolExecutor(_USERS_AT_ONCE, thread_name_prefix="panel") as pool:
            for at in range(0, len(user_ids), _READINGS_AT_ONCE):
                batch = user_ids[at : at + _READINGS_AT_ONCE]
                # With the request's context, so that its id goes along; one can be entered once at a time.
                contexts = [copy_context() for _ in batch]
                found = pool.map(lambda one, context: context.run(self._read, one, named=named), batch, contexts)
                yield [reading for reading in found if reading is not None]

    def before_newest(self, readings: Sequence[Reading]) -> tuple[list[Reading], list[str]]:
        """Users before their newest item, and that item; of those who had others before it, and not the same one.

        Both are empty where nobody had.
        """
        usable = [one for one in readings if one.position > 1 and one.history[-1] not in one.history[:-1]]
        if not usable:
            return [], []
        model, version = self._loaded.model, self._loaded.triple.model_version
        earlier: list[Reading] = []
        for few in _together([Subject(one.user_id, one.history[:-1]) for one in usable]):
            earlier += self._recommender.embed_subjects(model, version, few, self._deadline)
        return earlier, [one.history[-1] for one in usable]

    def _listed(self, who: Who) -> list[str]:
        most = who.most or DEFAULT_USERS
        if who.segment is not None:
            self._check_segments()
        found: dict[str, None] = {}
        cursor = ""
        for _ in range(_MOST_PAGES):
            page = UserPage(
                self._loaded.model,
                self._loaded.triple.model_version,
                limit=most - len(found),
                cursor=cursor,
                segment=who.segment,
            )
            listed = self._recommender.users(page, self._deadline)
            found |= dict.fromkeys(listed.user_ids[: most - len(found)])
            cursor = listed.next_cursor
            if not cursor or len(found) >= most:
                break
        return list(found)

    def _check_segments(self) -> None:
        """FailedPreconditionError for a recommender that lists everybody whatever segment is asked for.

        It is sent a segment that nothing can be made of, once: who reads it must refuse it.
        """
        model, version = self._loaded.model, self._loaded.triple.model_version
        if version in self._reading_segments:
            return
        try:
            self._recommender.users(UserPage(model, version, limit=1, segment=AllOf(())), self._deadline)
        except InvalidRequestError:
            self._reading_segments.add(version)
            return
        raise FailedPreconditionError(
            "the recommender does not read segments of users, so nobody could be told apart; update it, or name users"
        )

    def _read(self, user_id: str, *, named: bool) -> Reading | None:
        try:
            reading = self._recommender.embed(self._loaded.model, Subject(user_id), self._deadline)
        except NotFoundError:
            if named:
                raise
            return None
        check_version(reading.model_version, self._loaded.triple.model_version)
        return replace(reading, user_id=user_id)


def _together(subjects: Sequence[Subject]) -> Iterator[list[Subject]]:
    """Subjects in calls of bounded size; one alone is never cut."""
    part: list[Subject] = []
    held = 0
    for one in subjects:
        size = len(one.history or ())
        if part and held + size > _ITEMS_AT_ONCE:
            yield part
            part, held = [], 0
        part.append(one)
        held += size
    if part:
        yield part
