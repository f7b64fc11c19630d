"""`python -m recsae_worker.train_process JOB`: trains one SAE as a job file says, for the step that owns this process.

Speaks JSON lines on stdout: {"event": "progress", ...} and at the end "done" or "failed". It ends when its owner
does: stdin reaching its end is the sign, on every platform.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

_OWNER_GONE = 75


def main(arguments: list[str]) -> int:
    """Trains; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m recsae_worker.train_process JOB\n")
        return 2
    out = _claim_stdout()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_end_with_owner, name="owner", daemon=True).start()
    job = json.loads(Path(arguments[0]).read_bytes())
    if job["threads"]:
        os.environ["OMP_NUM_THREADS"] = str(job["threads"])
    with _only_one(Path(job["out"])):
        from recsae.errors import RecsaeError

        try:
            done = _train(job, stop, lambda event: _say(out, event))
        except RecsaeError as error:
            _say(out, {"event": "failed", "message": str(error)})
            return 1
    if done is None:
        return 1
    _say(out, {"event": "done", **done})
    return 0


def _claim_stdout() -> TextIO:
    """The stream events go to; whatever libraries print goes to stderr instead."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _say(stream: TextIO, event: Mapping[str, Any]) -> None:
    stream.write(json.dumps(event) + "\n")
    stream.flush()


def _only_one(folder: Path) -> TextIO:
    """Waits until no other process trains into this folder: a paused owner may leave one behind for a moment."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / ".lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _end_with_owner() -> None:
    while os.read(0, 4096):
        pass
    os._exit(_OWNER_GONE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
