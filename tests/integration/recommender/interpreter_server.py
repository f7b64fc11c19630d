"""A small real interpreter for the recommender's tests, in a process of its own that tests may kill.

Serves `WatchPlans`, `Steer`, `GetEncoder` and `Observe` on the port given. Reads commands from standard input, one a
line: `plans FILE` (a serialised PlanSet, pushed to every watcher), `encoder FILE` (an ONNX file), `sha256 TEXT`
(claimed for the encoder instead of the true one), `clock SECONDS` (its clock is ahead by so much), `refuse STATUS`
(what `Steer` answers; `refuse` alone = no more), `hang` (answers nothing any more) and `answer` (again). Prints
`port N`, `watching MODEL`, `pushed`, `set`, `encoder SAE_VERSION` and `observed ROWS STEERED` as they happen.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np

from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.steering.delta import Steerer
from recsae.steering.encoder import OnnxEncoder
from recsae.steering.matching import SteerContext
from recsae.steering.wire import attributes_from, timestamp
from recsae.steering.wire_plans import plan_from, receipt_message
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
        self.ahead_s = 0.0
        self.refusal: grpc.StatusCode | None = None
        self.answering = threading.Event()
        self.answering.set()

    def now(self) -> float:
        return time.time() + self.ahead_s

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
            sent_at = timestamp(self.now())
            if news:
                stamped = steering_pb2.PlanSet(revision=plans.revision, plans=plans.plans, sent_at=sent_at)
                yield steering_pb2.WatchPlansResponse(plans=stamped)
            else:
                heartbeat = steering_pb2.PlanHeartbeat(revision=plans.revision, sent_at=sent_at)
                yield steering_pb2.WatchPlansResponse(heartbeat=heartbeat)

    def Steer(self, request: steering_pb2.SteerRequest, context: grpc.ServicerContext) -> steering_pb2.SteerResponse:
        self.answering.wait()
        if self.refusal is not None:
            context.abort(self.refusal, "told to refuse")
        plan = plan_from(self.plans.plans[0])
        x = from_tensor(request.batch.activations, name="x", dtype=np.float32, shape=(None, plan.dim))
        contexts = [
            SteerContext(one.user_id, one.request_id, attributes_from(one.attributes)) for one in request.contexts
        ]
        steered = Steerer(plan, OnnxEncoder(self.encoder, plan.dim)).steer(x, contexts, self.now())
        receipts = [receipt_message(receipt) for receipt in steered.receipts]
        return steering_pb2.SteerResponse(activations=to_tensor(steered.activation), receipts=receipts)

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
            case "clock":
                steering.ahead_s = float(value)
                say("set")
            case "refuse":
                steering.refusal = grpc.StatusCode[value] if value else None
                say("set")
            case "hang":
                steering.answering.clear()
            case "answer":
                steering.answering.set()
    server.stop(0)


if __name__ == "__main__":
    main()
