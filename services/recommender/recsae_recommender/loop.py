"""Where recommendations are computed: in the server's polling thread, or in a thread of its own.

The polling thread is faster by a quarter, and what it computes holds up health checks and everything else of the
server: histories that come over a network, steering by call, large catalogues and rankers of pairs take the thread of
its own. Not here: how either works (`recsae.rpc.polling_lane`, `recsae.rpc.batch_lane`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import grpc
import structlog

from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.batch_lane import BatchLane
from recsae.rpc.polling_lane import PollingLane, serves_polling, start_polling
from recsae.rpc.server import RpcServer
from recsae.store.histories import is_remote
from recsae_recommender.settings import RecommenderSettings

_log = structlog.get_logger(__name__)
_NAME = "recommend"
# A batch of 32 over so many items takes some 20 ms (benchmarks/catalogue.py).
_MOST_ITEMS = 200_000


def make_lane(settings: RecommenderSettings, recommenders: Sequence[OnnxRecommender]) -> BatchLane:
    """The lane of `Recommend`; it runs nothing before `start_server`."""
    most = settings.max_workers + settings.max_queue
    waits = settings.steering == "rpc" or any(is_remote(url) for url in settings.history_urls())
    long = any(model.n_items > _MOST_ITEMS or model.hooks[0].rows == "pair" for model in recommenders)
    if settings.loop == "thread" or waits or long:
        return BatchLane(_NAME, most_held=most)
    if not serves_polling():
        _log.warning("loop_not_known", grpcio=grpc.__version__, remedy="install the grpcio of the lock file")
        return BatchLane(_NAME, most_held=most)
    return PollingLane(_NAME, most_held=most)


def start_server(server: RpcServer, lane: BatchLane) -> None:
    """Starts both; the server drains and ends the lane."""
    if isinstance(lane, PollingLane):
        server.start(partial(start_polling, lane=lane))
    else:
        lane.start()
        server.start()
