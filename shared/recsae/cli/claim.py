"""Who supervises a workspace: a lock on one file, held by the supervisor as long as it lives.

The kernel drops the lock with its holder, however that ends, so nothing stale is left behind and no recycled process
id is taken for a supervisor. Not here: where the platform listens (`recsae.cli.workspace`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from recsae.errors import FailedPreconditionError

_CLAIM_S = 0.5  # longer than another process looks, far longer than a person notices
_PAUSE_S = 0.02


class Claim:
    """The right to supervise the workspace that `path` lies in; one process at a time has it."""

    def __init__(self, path: Path) -> None:
        """`path` is made by the first holder and stays."""
        self._path = path

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds it while the block runs; FailedPreconditionError names the process that has it already."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+b") as file:
            if not _lock(file):
                raise FailedPreconditionError(
                    f"a platform already runs in {self._path.parent} (process {self.holder()}); "
                    "stop it with `recsae down`"
                )
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            file.flush()
            yield

    def holder(self) -> int | None:
        """Process id of the supervisor, None when nobody supervises."""
        try:
            with self._path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read() or 0) or None  # empty while the holder is writing it
        except FileNotFoundError:
            pass
        return None


def _lock(file: BinaryIO) -> bool:
    """Tries again for a moment: `Claim.holder` of another process locks the file while it looks."""
    deadline = time.monotonic() + _CLAIM_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_S)  # flock has no deadline of its own
        else:
            return True
