"""Which loopback ports a local platform listens on."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

from recsae.errors import UnavailableError

_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """Loopback ports of one platform."""

    state: int = 6390
    bus: int = 6391
    recommender: int = 50051
    interpreter: int = 50052
    recommender_metrics: int = 9101
    interpreter_metrics: int = 9102
    worker_metrics: int = 9103

    @classmethod
    def choose(cls) -> Ports:
        """The default ports, each replaced by a free one when it is taken."""
        return cls().free()

    def free(self) -> Ports:
        """These ports, each replaced by a free one when it is taken; no two are the same."""
        with contextlib.ExitStack() as held:  # held until all are chosen, so that none is given twice
            chosen = {}
            for name, port in vars(self).items():
                probe = held.enter_context(_socket())
                if not _bind(probe, port) and not _bind(probe, 0):
                    raise UnavailableError(f"no free port on {_HOST}")
                chosen[name] = int(probe.getsockname()[1])
            return Ports(**chosen)

    def taken(self) -> dict[str, int]:
        """Those somebody listens on, by name."""
        taken = {}
        for name, port in vars(self).items():
            with _socket() as probe:
                if not _bind(probe, port):
                    taken[name] = port
        return taken


def _socket() -> socket.socket:
    probe = socket.socket()
    # Connections of a platform stopped a moment ago linger on its ports; they keep nobody from listening there.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return probe


def _bind(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind((_HOST, port))
    except OSError:
        return False
    return True
