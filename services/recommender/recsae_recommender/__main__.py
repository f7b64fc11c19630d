"""`python -m recsae_recommender`: serves until SIGTERM or SIGINT."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from recsae.rpc.grpc_engine import serve_in_one_thread

if TYPE_CHECKING:
    from recsae.rpc.main import App
    from recsae_recommender.settings import RecommenderSettings


def main() -> int:
    """The exit status. Imports here: gRPC reads the environment as it is imported."""
    serve_in_one_thread()
    from recsae.rpc.main import run_service
    from recsae_recommender.settings import RecommenderSettings

    return run_service("recommender", RecommenderSettings, _build)


def _build(settings: RecommenderSettings) -> App:
    """One process that serves, the parent of several, or a child of that."""
    if settings.processes == 1 and settings.process is None:
        from recsae_recommender.app import RecommenderApp

        return RecommenderApp(settings)
    from recsae_recommender.processes import MemberApp, ProcessesApp

    return ProcessesApp(settings) if settings.process is None else MemberApp(settings)


if __name__ == "__main__":
    sys.exit(main())
