"""One training run of known size, timed, with its peak memory: `python -m benchmarks.growth_point POINT FOLDER`.

A process of its own per point. A tiny run comes first, so that compiling and importing are not in the time.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from recsae.sae.batches import ArrayRows, Rows
from recsae.sae.config import SaeConfig
from recsae.sae.shards import ShardReader
from recsae.sae.training import train_sae

_STATUS = Path("/proc/self/status")
_LOOK_EVERY_S = 0.05
_MIB = 1 << 20


@dataclass(frozen=True)
class Point:
    """An SAE of `width` latents, `k` per row, trained once over `rows` vectors of length `d`."""

    rows: int
    d: int
    width: int
    k: int


@dataclass(frozen=True)
class Measured:
    """`seconds` of the call by the clock; `cpu_seconds` of all its threads, which neighbours change less.

    `resident_mib` counts mapped shard pages too, which the system drops when it wants them.

    `anonymous_mib` is what it cannot drop: the memory that has to be there; 0 where the system does not tell.
    """

    seconds: float
    cpu_seconds: float
    resident_mib: float
    anonymous_mib: float
    fvu: float


class FirstRows:
    """`Rows` of the first `n` rows of others."""

    def __init__(self, rows: Rows, n: int) -> None:
        """InvalidRequestError comes from `rows` when it holds fewer."""
        self._rows, self.n, self.d = rows, n, rows.d

    @property
    def fingerprint(self) -> str:
        """Of what it is cut from, and where."""
        return f"{self._rows.fingerprint}:{self.n}"

    def read(self, start: int, stop: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """Rows start..stop-1."""
        return self._rows.read(start, stop)


class AnonymousMemory:
    """The highest anonymous memory of this process while the block runs, looked at 20 times a second."""

    def __enter__(self) -> Self:
        self.peak_bytes, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while _STATUS.exists():
            text = _STATUS.read_text()
            at = text.find("RssAnon:")
            self.peak_bytes = max(self.peak_bytes, int(text[at:].split()[1]) * 1024 if at >= 0 else 0)
            if self._stop.wait(_LOOK_EVERY_S):
                return


def measure_point(point: Point, folder: Path) -> Measured:
    """Trains on the shards of `folder`; the artifact goes to a temporary folder."""
    config = SaeConfig.defaults_for(point.d, point.rows, width=point.width, k=point.k, epochs=1)
    with tempfile.TemporaryDirectory() as scratch:
        _warm_up(config, Path(scratch) / "warm-up")
        rows = FirstRows(ShardReader.open_folders(folder), point.rows)
        with AnonymousMemory() as memory:
            begun, worked = time.perf_counter(), time.process_time()
            facts = train_sae(rows, config, Path(scratch) / "sae")
            seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - worked
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Measured(seconds, cpu_seconds, resident / _MIB, memory.peak_bytes / _MIB, facts.scores["train_fvu"])


def _warm_up(config: SaeConfig, out: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((2 * config.batch_size, config.d), np.float32)
    train_sae(ArrayRows(rows), config, out)


if __name__ == "__main__":
    result = measure_point(Point(**json.loads(sys.argv[1])), Path(sys.argv[2]))
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
