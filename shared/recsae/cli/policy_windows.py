"""When a policy holds, as it is written on the command line: durations, times, and the window they make.

Times are UTC unless they say otherwise. Not here: what is done with them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from recsae.errors import InvalidRequestError
from recsae.v1 import common_pb2

_DURATION = re.compile(r"(?P<number>\d{1,6}(?:\.\d+)?)(?P<unit>[mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def parse_duration(text: str) -> timedelta:
    """`30m`, `12h` or `7d`; InvalidRequestError shows the form."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidRequestError(f"{text!r} is not a duration; write e.g. 30m, 12h or 7d")
    return float(match["number"]) * _UNITS[match["unit"]]


def parse_time(text: str, now: datetime) -> datetime:
    """A duration from `now`, or a date with or without a time; InvalidRequestError shows the forms."""
    try:
        if _DURATION.fullmatch(text):
            return now + parse_duration(text)
        at = datetime.fromisoformat(text)
        # Only now may it prove to lie before the year 1 or after 9999 in UTC.
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError(
            f"{text!r} is no time; write e.g. 2h (from now), 2026-12-01 or 2026-12-01T18:00, in UTC unless it says else"
        ) from error


def window_of(duration: timedelta) -> common_pb2.TimeWindow:
    """From now for `duration`."""
    now = datetime.now(UTC)
    window = common_pb2.TimeWindow()
    window.start.FromDatetime(now)
    window.end.FromDatetime(now + duration)
    return window


def changed_window(
    before: common_pb2.TimeWindow, *, start: str | None, lasts: str | None, until: str | None, now: datetime
) -> common_pb2.TimeWindow:
    """`before` with what is given in its place; `lasts` counts from the start where that lies ahead, else from `now`.

    InvalidRequestError when both `lasts` and `until` are given.
    """
    if lasts is not None and until is not None:
        raise InvalidRequestError(f"--lasts {lasts} and --until {until} both say when it ends; give one of them")
    window = common_pb2.TimeWindow()
    window.CopyFrom(before)
    if start is not None:
        window.start.FromDatetime(parse_time(start, now))
    if until is not None:
        window.end.FromDatetime(parse_time(until, now))
    if lasts is not None:
        begins = window.start.ToDatetime(UTC) if window.HasField("start") else now
        try:
            window.end.FromDatetime(max(begins, now) + parse_duration(lasts))
        except OverflowError as error:
            raise InvalidRequestError(f"--lasts {lasts} goes beyond the year 9999; give less") from error
    return window
