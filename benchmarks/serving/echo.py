"""The bare echo server: grpc's own synchronous server, nothing of ours but the messages. PORT THREADS RESPONSE.

Parses each RecommendRequest and serialises the RecommendResponse of the file, so that both have the sizes that the
recommender's have.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from recsae.v1 import recommender_pb2


def main(port: int, threads: int, response: Path) -> None:
    """Serves until it is ended."""
    answer = recommender_pb2.RecommendResponse.FromString(response.read_bytes())

    def recommend(
        _request: recommender_pb2.RecommendRequest, _context: grpc.ServicerContext
    ) -> recommender_pb2.RecommendResponse:
        return answer

    handler = grpc.unary_unary_rpc_method_handler(
        recommend,
        request_deserializer=recommender_pb2.RecommendRequest.FromString,
        response_serializer=recommender_pb2.RecommendResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(threads), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("recsae.v1.Recommender", {"Recommend": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
