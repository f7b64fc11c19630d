"""What gRPC reads from the environment as it is imported, for a server whose polling thread does everything.

Imports no gRPC, because it would be too late then. What the environment says already stays.
"""

from __future__ import annotations

import os
from importlib.metadata import version

KNOWN = ("1.85.",)
"""Releases of grpcio whose internals and experiments this project has looked at and tests run on."""

# gRPC's event engine reads and writes sockets in threads of its own: a call is handed over three times more, at a
# quarter of a recommendation's processor time. Without it the thread that polls for events does the reading as well, as
# in earlier releases. Clients keep it: without it they take half as long again to find a server that comes up.
_EXPERIMENTS = "-event_engine_listener,-event_engine_for_all_other_endpoints"
# With the usual engine, epoll1, all threads of a process poll one set of sockets: with a stream of plans open, each
# event of the server woke that stream's thread first, 60 us for a lone call. What a poll costs grows with the
# connections: with thousands of them, set the variable to epoll1.
_STRATEGY = "poll"


def is_known(release: str) -> bool:
    """True for a release of grpcio out of `KNOWN`."""
    return release.startswith(KNOWN)


def engine_environment() -> dict[str, str]:
    """What gRPC is to read; nothing with a release that is not known."""
    if not is_known(version("grpcio")):
        return {}
    return {"GRPC_POLL_STRATEGY": _STRATEGY, "GRPC_EXPERIMENTS": _EXPERIMENTS}


def serve_in_one_thread() -> None:
    """Sets it for this process, before anything imports gRPC."""
    for name, value in engine_environment().items():
        os.environ.setdefault(name, value)
