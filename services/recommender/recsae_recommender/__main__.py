"""`python -m recsae_recommender`: serves until SIGTERM or SIGINT."""

from __future__ import annotations

import os
import sys

# Read by gRPC when it is imported. With its usual engine (epoll1) the threads of a process poll one set of sockets:
# with a stream of plans open, each event of the server woke that stream's thread first, 60 us for a lone call. What a
# poll costs grows with the connections: with thousands of them, set the variable to epoll1.
os.environ.setdefault("GRPC_POLL_STRATEGY", "poll")

from recsae.rpc.main import App, run_service
from recsae_recommender.settings import RecommenderSettings


def _build(settings: RecommenderSettings) -> App:
    """One process that serves, the parent of several, or a child of that."""
    if settings.processes == 1 and settings.process is None:
        from recsae_recommender.app import RecommenderApp

        return RecommenderApp(settings)
    from recsae_recommender.processes import MemberApp, ProcessesApp

    return ProcessesApp(settings) if settings.process is None else MemberApp(settings)


if __name__ == "__main__":
    sys.exit(run_service("recommender", RecommenderSettings, _build))
