"""The processes that train one SAE together on this machine: started by the first of them, and gone with it.

They are copies of the training process with a place of their own in the environment. Each reads its stdin, which ends
when the first one does. Not here: what they tell each other (`recsae.sae.ranks`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recsae.sae.execution import Place

_GRACE_S = 10.0


@contextmanager
def other_ranks(job: Path, processes: int, folder: Path) -> Iterator[None]:
    """Starts ranks 1 to `processes` - 1 on the same job and takes rank 0; ends them with the block.

    They meet at a fresh file in `folder` and talk over the loopback interface.
    """
    if processes == 1:
        yield
        return
    for left in folder.glob(".meet-*"):  # by an attempt that was killed; the folder is ours alone
        left.unlink()
    meet = folder / f".meet-{uuid.uuid4().hex}"
    places = [Place(rank, processes, meet.absolute().as_uri()) for rank in range(processes)]
    loopback = {"GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0"}
    command = [sys.executable, "-m", "recsae_worker.train_process", str(job)]
    others = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **loopback, **place.environment()},
        )
        for place in places[1:]
    ]
    os.environ.update({**loopback, **places[0].environment()})
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
