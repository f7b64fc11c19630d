"""A few threads that share a range of rows or latents. Compiled functions let go of the interpreter while they run.

Threads only divide work whose parts do not meet, so results have the same bits however many there are. Threads of our
own rather than numba's: its layers abort when two callers overlap, or do not survive a fork.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Team:
    """`threads` workers."""

    def __init__(self, threads: int) -> None:
        """Starts them when there is more than one."""
        self.threads = max(1, threads)
        self._pool = ThreadPoolExecutor(self.threads, "sae") if self.threads > 1 else None

    def share(self, total: int, work: Callable[[int, int, int], None]) -> None:
        """Calls `work(worker, begin, end)` on as many stretches of 0..total as there are workers; waits for all."""
        if self._pool is None:
            work(0, 0, total)
            return
        bounds = [total * part // self.threads for part in range(self.threads + 1)]
        calls = [self._pool.submit(work, part, bounds[part], bounds[part + 1]) for part in range(self.threads)]
        for call in calls:
            call.result()

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()
