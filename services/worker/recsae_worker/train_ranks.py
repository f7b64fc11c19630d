"""The processes that train one SAE together on this machine: started by the first of them, and gone with it.

They are copies of the training process with a place of their own in the environment, as torchrun would give it. Each
reads its stdin, which ends when the first one does. Not here: what they tell each other (`recsae.sae.ranks`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_GRACE_S = 10.0
_MEET = "RECSAE_RANKS_MEET"


def is_first() -> bool:
    """True for the process that speaks, saves and writes."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def other_ranks(job: Path, processes: int, folder: Path) -> Iterator[None]:
    """Starts ranks 1 to `processes` - 1 on the same job and takes rank 0; ends them with the block.

    They meet at a fresh file in `folder`, over the loopback interface. Nothing where torchrun has started all ranks.
    """
    if processes == 1 or "WORLD_SIZE" in os.environ:
        yield
        return
    meet = folder / f".meet-{uuid.uuid4().hex}"
    place = {"WORLD_SIZE": str(processes), _MEET: meet.absolute().as_uri(), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "recsae_worker.train_process", str(job)]
    others = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(1, processes)
    ]
    os.environ.update({**place, "RANK": "0", "LOCAL_RANK": "0"})
    try:
        yield
    finally:
        for other in others:
            with suppress(subprocess.TimeoutExpired):
                other.wait(_GRACE_S)
            if other.poll() is None:
                other.kill()
                other.wait()
            if other.stdin is not None:
                other.stdin.close()
        meet.unlink(missing_ok=True)
