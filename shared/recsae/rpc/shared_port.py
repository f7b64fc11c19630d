"""A port that several processes of one service bind together (SO_REUSEPORT), held by the process that started them.

The kernel lets every process of the same user join such a port and gives it a share of the connections. So the holder
makes sure at the start that nobody has the port, keeps it while its children come and go, and can tell whether somebody
else joined. Linux only. Not here: the children (`process_group`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Collection
from pathlib import Path

from recsae.errors import FailedPreconditionError

_TCP_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTEN = "0A"


class SharedPort:
    """A port held without listening on it, so that no connection ever waits here."""

    def __init__(self, host: str, port: int) -> None:
        """Takes the port, a free one for 0; FailedPreconditionError when anybody has it."""
        if sys.platform != "linux":
            raise FailedPreconditionError(
                f"processes share a port on Linux only, not on {sys.platform}; set processes to 1"
            )
        self._held = contextlib.ExitStack()
        try:
            self.port = self._take(host, port)
        except OSError as error:
            self.close()
            raise FailedPreconditionError(
                f"{host}:{port} cannot be bound ({error.strerror or error}); another process may hold it: stop that or "
                "set another port"
            ) from error

    def close(self) -> None:
        """Lets the port go."""
        self._held.close()

    def _take(self, host: str, port: int) -> int:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        held = self._held.enter_context(socket.socket(family, socket.SOCK_STREAM))
        if port:  # connections of a server that ended a moment ago do not make the port taken
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
        # Bound alone, so nobody listens here; only now may others of this user join.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound = int(held.getsockname()[1])
        # Two groups that start at once both find nobody listening: a name of the network namespace has one owner.
        name = self._held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        name.bind(f"\0recsae-port-{host}-{bound}")
        return bound


def strangers(port: int, processes: Collection[int]) -> int:
    """How many sockets listen on the port that belong to none of these processes (ids); 0 where /proc does not say."""
    listening = _listening(port)
    return len(listening - _sockets(processes)) if listening else 0


def _listening(port: int) -> set[str]:
    """Inodes of the sockets that listen on the port, at any address."""
    found = set()
    for table in _TCP_TABLES:
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _sockets(processes: Collection[int]) -> set[str]:
    """Inodes of the sockets that these processes have open."""
    found = set()
    for process in processes:
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    found.add(os.readlink(entry.path).removeprefix("socket:[").removesuffix("]"))
    return found
