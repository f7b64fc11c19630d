"""Segment files of the exposure log: one per process and hour, bounded in size, appended to and synced, then deleted.

A segment has one writer, so all that a killed process or a full disk can leave is a torn last line; after a failed
write the next segment begins. Not here: what a line says (`record`), and when it is written (`log`).
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from recsae.errors import FailedPreconditionError
from recsae.store.files import fsync_folder

MOST_BYTES = 64 << 20
_HOUR_S = 3600.0
_HOUR = "%Y%m%dT%H"
_NAME = re.compile(r"exposures-(?P<hour>\d{8}T\d{2})-(?P<process>[0-9a-f]{8})-(?P<number>\d{4,})\.jsonl")


class SegmentWriter:
    """Appends lines to segments of its own in one folder; for one thread."""

    def __init__(
        self,
        folder: Path,
        *,
        retention_days: float,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folder` is made, for its owner alone; FailedPreconditionError when nothing can be written there."""
        self._folder, self._clock, self._most_bytes = folder, clock, most_bytes
        self._retention_s = retention_days * 24 * _HOUR_S
        self._process = uuid.uuid4().hex[:8]
        self._number = 0
        self._hour = ""
        self._path = folder
        self._descriptor = -1
        self._written = 0
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _unusable(folder, error.strerror) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _unusable(folder, "it may not be written to")

    def append(self, lines: Sequence[bytes]) -> None:
        """Appends whole lines and waits until the disk has them; OSError when it did not take them."""
        content = b"".join(lines)
        self._open(len(content))
        try:
            _write_all(self._descriptor, content)
            os.fsync(self._descriptor)
        except OSError:
            self._give_up()
            raise
        self._written += len(content)

    def delete_old(self) -> int:
        """Deletes segments, of whatever process, whose hour ended longer ago than they are kept; returns how many."""
        oldest, deleted = self._clock() - self._retention_s, 0
        for path in segment_files(self._folder):
            began = _hour_of(path)
            if began is not None and began + _HOUR_S <= oldest:
                path.unlink(missing_ok=True)  # another process may have been first
                deleted += 1
        return deleted

    def close(self) -> None:
        """Ends the segment; the next line begins another one."""
        # Let go of first: whatever closing says, the number may be another file's from here on.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _give_up(self) -> None:
        """Ends a segment that part of a line may be in: nothing may follow it. One without a whole line is deleted.

        A disk that stays full would else be left with a file for each attempt.
        """
        with suppress(OSError):
            self.close()
        if not self._written:
            with suppress(OSError):
                self._path.unlink()

    def _open(self, more: int) -> None:
        """A segment of this hour with room for `more` bytes, or an empty one."""
        hour = datetime.fromtimestamp(self._clock(), UTC).strftime(_HOUR)
        full = self._written + more > self._most_bytes and self._written > 0
        if self._descriptor >= 0 and hour == self._hour and not full:
            return
        self.close()
        self._number += 1
        self._path = self._folder / f"exposures-{hour}-{self._process}-{self._number:04}.jsonl"
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._hour, self._written = hour, 0
        fsync_folder(self._folder)


def segment_files(folder: Path) -> list[Path]:
    """Segments of a folder, oldest hour first; other files are not looked at."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def _hour_of(path: Path) -> float | None:
    """When the hour of a segment began, in seconds since the epoch; None for one that no clock shows."""
    found = _NAME.fullmatch(path.name)
    assert found is not None, "segment_files gives segments"
    try:
        return datetime.strptime(found["hour"], _HOUR).replace(tzinfo=UTC).timestamp()
    except ValueError:  # a file of somebody else's, named much like ours
        return None


def _write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _unusable(folder: Path, why: str | None) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"exposures cannot be written to {folder} ({why}); name a folder this service may write to, or none"
    )
