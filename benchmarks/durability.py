"""Is anything acknowledged lost when the state server is killed in the middle? `python -m benchmarks.durability`.

Writers make, change and move policies at once, as interpreters do, while the server, run as `recsae up` runs it, is
killed with SIGKILL at a random moment and started again on its files, a hundred times. After each restart the
writers repeat the calls whose answers were lost, and everything the server holds is compared with what they were told.
A kill leaves the system's page cache; what protects against a power cut is the fsync before each answer, which this
does not test. The last line is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.durability_writes import Found, Ledger, Writer, compared, shared_policy
from benchmarks.machine import this_machine
from recsae.cli.servers import state_server
from recsae.store.redis import connect

_READY_S = 60.0
_SHORTEST_S, _LONGEST_S = 0.02, 0.2


class KilledServer:
    """The state server as `recsae up` runs it, on a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Starts it."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{port}/0"
        self._spec = state_server(folder, port)
        self.start()

    def start(self) -> None:
        """Starts it on its files and waits until it answers; RuntimeError when it does not."""
        self._process = subprocess.Popen(self._spec.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _READY_S
        while self._spec.ready is not None and not self._spec.ready(self._process.pid):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the state server did not start on its files (exit {self._process.poll()})")
            time.sleep(0.005)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@dataclass(frozen=True)
class Outcome:
    """Of all kills together; `interrupted` calls got no answer at first, and most of them one when repeated."""

    kills: int
    acknowledged: int
    refused: int
    interrupted: int
    found: Found
    policies: int
    seconds: float


def measure(folder: Path, *, kills: int, writers: int = 4, check_every: int = 1, seed: int = 0) -> Outcome:
    """Kills the server `kills` times during writes; stops at the first comparison that finds something wrong."""
    started = time.monotonic()
    server, ledger, moment = KilledServer(folder), Ledger(), random.Random(seed)
    try:
        with connect(server.url) as client:
            shared = shared_policy(client, ledger)
            crew = [Writer(client, ledger, shared, seed + number) for number in range(writers)]
            for number in range(1, kills + 1):
                threads = [threading.Thread(target=writer.run) for writer in crew]
                for thread in threads:
                    thread.start()
                time.sleep(moment.uniform(_SHORTEST_S, _LONGEST_S))
                server.kill()
                for thread in threads:
                    thread.join()
                server.start()
                if number % check_every == 0 or number == kills:
                    found = compared(client, ledger)
                    _say(number, ledger, sum(writer.interrupted for writer in crew), found)
                    if not found.fine:
                        break
        interrupted = sum(writer.interrupted for writer in crew)
        return Outcome(
            number, len(ledger.acknowledged), len(ledger.refused), interrupted, found, len(ledger.policies),
            time.monotonic() - started,
        )  # fmt: skip
    finally:
        server.kill()


def _say(kills: int, ledger: Ledger, interrupted: int, found: Found) -> None:
    sys.stdout.write(
        f"{kills:5} {len(ledger.policies):9,} {len(ledger.acknowledged):13,} {interrupted:12,} {len(found.lost):5} "
        f"{len(found.doubled):8} {len(found.torn):5}\n"
    )
    sys.stdout.flush()


def main() -> None:
    """Prints a table, then the JSON line; exit code 1 when something was lost, doubled or torn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--writers", type=int, default=4)
    arguments = parser.parse_args()
    machine = this_machine()
    sys.stdout.write(f"{machine.processor}, {machine.cores} cores, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n")
    sys.stdout.write("kills  policies  acknowledged  interrupted  lost  doubled  torn\n")
    with tempfile.TemporaryDirectory(prefix="recsae-durability-") as folder:
        done = measure(Path(folder), kills=arguments.kills, writers=arguments.writers)
    for problem in (*done.found.lost, *done.found.doubled, *done.found.torn)[:20]:
        sys.stdout.write(f"{problem}\n")
    result = {
        "bench": "durability",
        "kills": done.kills,
        "writers": arguments.writers,
        "policies": done.policies,
        "acknowledged": done.acknowledged,
        "refused": done.refused,
        "interrupted": done.interrupted,
        "lost": len(done.found.lost),
        "doubled": len(done.found.doubled),
        "torn": len(done.found.torn),
        "seconds": round(done.seconds, 1),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(0 if done.found.fine and done.kills == arguments.kills else 1)


if __name__ == "__main__":
    main()
