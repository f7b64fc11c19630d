"""A small interpreter with one fixed plan, so that no state server takes part: PORT PLANS ENCODER.

Serves `WatchPlans` (with heartbeats), `GetEncoder` and `Steer` as the real one does.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from recsae.rpc.tensors import from_tensor
from recsae.steering.delta import Steerer
from recsae.steering.encoder import OnnxEncoder
from recsae.steering.wire_plans import plan_from
from recsae.v1 import steering_pb2, steering_pb2_grpc
from recsae_interpreter.convert_steering import contexts_from, steer_response

_HEARTBEAT_S = 1.0


class FixedPlan(steering_pb2_grpc.SteeringServicer):
    """Plans and the encoder from files."""

    def __init__(self, plans: bytes, encoder: bytes) -> None:
        self._plans = steering_pb2.PlanSet.FromString(plans)
        self._encoder = encoder
        self._never = threading.Event()
        plan = plan_from(self._plans.plans[0])
        self._steerer = Steerer(plan, OnnxEncoder(encoder, plan.dim))

    def WatchPlans(  # noqa: N802
        self, _request: steering_pb2.WatchPlansRequest, context: grpc.ServicerContext
    ) -> Iterator[steering_pb2.WatchPlansResponse]:
        """The plans, then heartbeats."""
        yield steering_pb2.WatchPlansResponse(plans=self._plans)
        while context.is_active():
            self._never.wait(_HEARTBEAT_S)
            heartbeat = steering_pb2.PlanHeartbeat(revision=self._plans.revision)
            yield steering_pb2.WatchPlansResponse(heartbeat=heartbeat)

    def GetEncoder(  # noqa: N802
        self, _request: steering_pb2.GetEncoderRequest, _context: grpc.ServicerContext
    ) -> steering_pb2.GetEncoderResponse:
        """The encoder, whichever is asked for."""
        return steering_pb2.GetEncoderResponse(onnx=self._encoder, sha256=hashlib.sha256(self._encoder).hexdigest())

    def Steer(  # noqa: N802
        self, request: steering_pb2.SteerRequest, _context: grpc.ServicerContext
    ) -> steering_pb2.SteerResponse:
        """The rows steered by the plan."""
        x = from_tensor(request.batch.activations, name="activations", dtype=np.float32, shape=(None, None))
        return steer_response(self._steerer.steer(x, contexts_from(request), time.time()))


def main(port: int, plans: Path, encoder: Path) -> None:
    """Serves until it is ended."""
    servicer = FixedPlan(plans.read_bytes(), encoder.read_bytes())  # type: ignore[abstract]  # the rest: UNIMPLEMENTED
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    steering_pb2_grpc.add_SteeringServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
