"""Whether two servers answer with the same lists, bit for bit, alone and in company."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc

from benchmarks.serving.crew import Crew
from recsae.v1 import recommender_pb2, recommender_pb2_grpc

_CALL_S, _TOGETHER = 60.0, 16


def same_lists(crew: Crew, one: str, other: str, users: int) -> bool:
    """True when both give the first users of the world the same items with the same scores."""
    return _lists(crew, one, users) == _lists(crew, other, users)


def _lists(crew: Crew, name: str, users: int) -> list[bytes]:
    with grpc.insecure_channel(f"127.0.0.1:{crew.servers[name].port}") as channel:
        stub = recommender_pb2_grpc.RecommenderStub(channel)

        def items(user: int) -> bytes:
            request = recommender_pb2.RecommendRequest.FromString(crew.request(user))
            found = stub.Recommend(request, timeout=_CALL_S)
            return recommender_pb2.RecommendResponse(items=found.items).SerializeToString(deterministic=True)

        with ThreadPoolExecutor(_TOGETHER) as pool:
            return list(pool.map(items, range(users)))
