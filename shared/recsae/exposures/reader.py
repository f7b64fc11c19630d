"""Reading an exposure log: every segment of a folder, line by line; what cannot be read is left out and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from recsae.errors import InvalidRequestError, NotFoundError
from recsae.exposures.record import Exposure, from_line
from recsae.exposures.segments import segment_files


class ExposureReader:
    """Iterates over the exposures of a folder, oldest segment first; memory is one line."""

    def __init__(self, folder: Path) -> None:
        """NotFoundError when the folder holds no segment."""
        if not folder.is_dir():
            raise NotFoundError(f"there is no folder {folder}; name the one that RECSAE_RECOMMENDER_EXPOSURES names")
        self._segments = segment_files(folder)
        if not self._segments:
            raise NotFoundError(
                f"{folder} holds no exposures; set RECSAE_RECOMMENDER_EXPOSURES to it and wait for some"
            )
        self.skipped: Counter[str] = Counter()
        """Lines left out so far: `torn` (a process was killed while it wrote), or `unreadable`."""

    def __iter__(self) -> Iterator[Exposure]:
        """Each exposure that can be read."""
        for path in self._segments:
            yield from self._of(path)

    def _of(self, path: Path) -> Iterator[Exposure]:
        try:
            stream = path.open("rb")
        except FileNotFoundError:  # retention was faster
            return
        with stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    self.skipped["torn"] += 1
                    continue
                try:
                    yield from_line(line)
                except InvalidRequestError:
                    self.skipped["unreadable"] += 1
