"""A small real interpreter for the recommender's tests, in a process of its own that tests may kill.

Serves `WatchPlans`, `GetEncoder` and `Observe` on the port given. Reads commands from standard input, one a line:
`plans FILE` (a serialised PlanSet, pushed to every watcher), `encoder FILE` (an ONNX file), `sha256 TEXT` (claimed
for the encoder instead of the true one), `hang` (answers nothing any more) and `answer` (again). Prints `port N`,
`watching MODEL`, `pushed`, `encoder SAE_VERSION` and `observed ROWS STEERED` as they happen.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np

from recsae.rpc.tensors import from_tensor
from recsae.v1 import interpreter_pb2, interpreter_pb2_grpc, steering_pb2, steering_pb2_grpc

_HEARTBEAT_S = 0.1
_print_lock = threading.Lock()


def say(*words: object) -> None:
    """Tells the test, one line."""
    with _print_lock:
        sys.stdout.write(" ".join(str(word) for word in words) + "\n")
        sys.stdout.flush()


class Steering(steering_pb2_grpc.SteeringServicer):
    """Plans and the encoder."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.plans = steering_pb2.PlanSet()
        self.pushes = 0
        self.encoder = b""
        self.sha256 = ""
        self.answering = threading.Event()
        self.answering.set()

    def push(self, plans: steering_pb2.PlanSet) -> None:
        with self.changed:
            self.plans = plans
            self.pushes += 1
            self.changed.notify_all()

    def WatchPlans(
        self, request: steering_pb2.WatchPlansRequest, context: grpc.ServicerContext
    ) -> Iterator[steering_pb2.WatchPlansResponse]:
        say("watching", request.model)
        sent = -1
        while context.is_active():
            self.answering.wait()
            with self.changed:
                self.changed.wait_for(lambda: self.pushes != sent, _HEARTBEAT_S)  # noqa: B023
                news, sent, plans = self.pushes != sent, self.pushes, self.plans
            if news:
                yield steering_pb2.WatchPlansResponse(plans=plans)
            else:
                yield steering_pb2.WatchPlansResponse(heartbeat=steering_pb2.PlanHeartbeat(revision=plans.revision))

    def GetEncoder(
        self, request: steering_pb2.GetEncoderRequest, context: grpc.ServicerContext
    ) -> steering_pb2.GetEncoderResponse:
        self.answering.wait()
        say("encoder", request.sae_version)
        return steering_pb2.GetEncoderResponse(
            onnx=self.encoder, sha256=self.sha256 or hashlib.sha256(self.encoder).hexdigest()
        )


class Interpreter(interpreter_pb2_grpc.InterpreterServicer):
    """Takes observations."""

    def __init__(self, steering: Steering) -> None:
        self._steering = steering

    def Observe(
        self, request: interpreter_pb2.ObserveRequest, context: grpc.ServicerContext
    ) -> interpreter_pb2.ObserveResponse:
        self._steering.answering.wait()
        rows = from_tensor(request.batch.activations, name="activations", dtype=np.float32, shape=(None, None))
        steered = from_tensor(request.steered, name="steered", dtype=np.bool_, shape=(len(rows),))
        # No subject is sent: nothing about whom a row belongs to leaves the recommender.
        assert not request.batch.subjects
        say("observed", len(rows), int(steered.sum()))
        return interpreter_pb2.ObserveResponse(accepted=len(rows))


def main() -> None:
    steering = Steering()  # type: ignore[abstract]  # the methods left out answer UNIMPLEMENTED
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    steering_pb2_grpc.add_SteeringServicer_to_server(steering, server)
    interpreter_pb2_grpc.add_InterpreterServicer_to_server(Interpreter(steering), server)  # type: ignore[abstract]
    say("port", server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}"))
    server.start()
    for line in sys.stdin:
        command, _, value = line.strip().partition(" ")
        match command:
            case "plans":
                steering.push(steering_pb2.PlanSet.FromString(Path(value).read_bytes()))
                say("pushed")
            case "encoder":
                steering.encoder = Path(value).read_bytes()
            case "sha256":
                steering.sha256 = value
            case "hang":
                steering.answering.clear()
            case "answer":
                steering.answering.set()
    server.stop(0)


if __name__ == "__main__":
    main()
