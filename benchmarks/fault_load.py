"""Load and policies of the fault run: an open stream of requests, and somebody who keeps making and deleting policies.

Every request and every write is recorded with its times; nothing is judged here (`fault_judge`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from benchmarks.fault_world import LIST, MODEL, USERS, World, concept
from recsae.rpc.client import ClientOptions, channel
from recsae.steering.policies import Operation, OperationKind, Window
from recsae.steering.wire import operation_message, window_message
from recsae.v1 import recommender_pb2, recommender_pb2_grpc, steering_pb2, steering_pb2_grpc

REQUEST_TIMEOUT_S = 10.0
_WRITE_TIMEOUT_S = 1.0
_RETRY_S = 0.1
_BETWEEN_WRITES_S = 0.3
_SHORT_LIFE_S = 1.0
_LONG_LIFE_S = 600.0


@dataclass(frozen=True)
class Asked:
    """One request, when it was sent and answered (seconds since the epoch, true time), and what came or went wrong."""

    replica: str
    user: str
    sent: float
    answered: float
    reply: recommender_pb2.RecommendResponse | None
    error: str = ""


@dataclass
class Written:
    """One policy as it was asked for. `made`: when the first attempt began and the acknowledgement came; so `ended`."""

    name: str
    users: tuple[str, ...]
    operations: tuple[Operation, ...]
    window_end: float
    made: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    id: str = ""


class Load:
    """Sends `rate` requests a second to each replica, whether or not the ones before were answered."""

    def __init__(self, ports: Mapping[str, int], world: World, rate: float) -> None:
        """`ports` by the replica's name."""
        self._channels = {
            name: channel(f"127.0.0.1:{port}", ClientOptions(retries=False)) for name, port in ports.items()
        }
        self._stubs = {name: recommender_pb2_grpc.RecommenderStub(one) for name, one in self._channels.items()}
        self._histories = world.histories()
        self._period_s = 1 / rate
        self._done = threading.Event()
        self._answered = threading.Condition()
        self._in_flight = 0
        self.asked: list[Asked] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends, and waits for the answers still under way."""
        self._done.set()
        self._thread.join()
        with self._answered:
            self._answered.wait_for(lambda: not self._in_flight, REQUEST_TIMEOUT_S + 5)
        for one in self._channels.values():
            one.close()

    def wait_until(self, replicas: Sequence[str], policy: Written, timeout_s: float) -> float:
        """Seconds until every replica has applied a policy once; infinite when that took longer than `timeout_s`."""
        begun, missing = time.time(), set(replicas)
        with self._answered:
            while missing and time.time() < begun + timeout_s:
                for one in reversed(self.asked):
                    if one.sent < begun:
                        break
                    if one.reply is not None and policy.id in {ref.policy_id for ref in one.reply.receipt.applied}:
                        missing.discard(one.replica)
                self._answered.wait(0.05)
        return float("inf") if missing else time.time() - begun

    def _run(self) -> None:
        begun, number = time.monotonic(), 0
        while not self._done.wait(max(0.0, begun + number * self._period_s - time.monotonic())):
            user = USERS[number % len(USERS)]
            for replica, stub in self._stubs.items():
                self._send(replica, stub, user)
            number += 1

    def _send(self, replica: str, stub: recommender_pb2_grpc.RecommenderStub, user: str) -> None:
        request = recommender_pb2.RecommendRequest(user_id=user, k=LIST)
        request.history.item_ids.extend(self._histories[user])
        sent = time.time()
        with self._answered:
            self._in_flight += 1
        call = stub.Recommend.future(request, timeout=REQUEST_TIMEOUT_S)

        def done(finished: Any) -> None:
            error = finished.exception()
            reply = None if error is not None else finished.result()
            with self._answered:
                self._in_flight -= 1
                self.asked.append(Asked(replica, user, sent, time.time(), reply, repr(error) if error else ""))
                self._answered.notify_all()

        call.add_done_callback(done)


class Operator:
    """Makes and deletes policies in turns until stopped, trying each write until it is acknowledged."""

    def __init__(self, interpreter_port: int) -> None:
        """Talks to the interpreter directly."""
        self._channel = channel(f"127.0.0.1:{interpreter_port}", ClientOptions(retries=False))
        self._stub = steering_pb2_grpc.SteeringStub(self._channel)
        self._done = threading.Event()
        self.written: list[Written] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the write under way, and asks for the ids of writes that were never acknowledged."""
        self._done.set()
        self._thread.join()
        request = steering_pb2.ListPoliciesRequest(model=MODEL, include_ended=True)
        named = {policy.name: policy.id for policy in self._stub.ListPolicies(request, timeout=20).policies}
        for written in self.written:
            written.id = written.id or named.get(written.name, "")

    def close(self) -> None:
        """Takes what still stands out of force."""
        for one in self.written:
            if not one.ended and one.window_end > time.time():
                self.delete(one, patient=True)
        self._channel.close()

    def add(self, users: Sequence[str], operations: Sequence[Operation], life_s: float, *, patient: bool) -> Written:
        """Makes a policy; `patient` = tries until it is acknowledged, even after `stop`."""
        name = f"fault-{time.time_ns()}"
        one = Written(name, tuple(users), tuple(operations), time.time() + life_s)
        self.written.append(one)
        policy = steering_pb2.Policy(
            name=name,
            model=MODEL,
            operations=[operation_message(operation) for operation in operations],
            scope=steering_pb2.Scope(user_ids=users),
            window=window_message(Window(end=one.window_end)),
        )
        request = steering_pb2.CreatePolicyRequest(policy=policy, reason="a fault run", idempotency_key=name)
        one.made.append(time.time())
        while not self._done.is_set() or patient:
            with contextlib.suppress(grpc.RpcError):
                one.id = self._stub.CreatePolicy(request, timeout=_WRITE_TIMEOUT_S).policy.id
                one.made.append(time.time())
                return one
            time.sleep(_RETRY_S)
        return one

    def delete(self, one: Written, *, patient: bool = False) -> None:
        """Takes a policy out of force."""
        if not one.id:
            return
        one.ended.append(time.time())
        request = steering_pb2.DeletePolicyRequest(policy_id=one.id, reason="a fault run")
        while not self._done.is_set() or patient:
            try:
                self._stub.DeletePolicy(request, timeout=_WRITE_TIMEOUT_S)
            except grpc.RpcError as error:
                # The attempt before was done after all, and only its answer was lost.
                gone = isinstance(error, grpc.Call) and error.code() in _GONE
                if not gone:
                    time.sleep(_RETRY_S)
                    continue
            one.ended.append(time.time())
            return

    def _run(self) -> None:
        held: list[Written] = []
        number = 0
        while not self._done.wait(_BETWEEN_WRITES_S):
            number += 1
            if number % 5 == 0:  # one whose window ends by itself
                self.add(USERS[1:5], FLEETING, _SHORT_LIFE_S, patient=False)
            elif len(held) == 2:
                self.delete(held.pop(0))
            else:
                # In turns, so that no two of a kind are ever in force: the first to touch a concept would keep it.
                adding = held[-1].operations != ADDING if held else True
                users, operations = (USERS[:4], ADDING) if adding else (USERS[2:6], READING)
                held.append(self.add(users, operations, _LONG_LIFE_S, patient=False))
        for one in held:
            self.delete(one, patient=True)


_GONE = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED)
ADDING = (Operation(concept(0, 3), OperationKind.ADD, 1.5),)
READING = (
    Operation(concept(0, 5), OperationKind.ABLATE, 0.0),
    Operation(concept(0, 6), OperationKind.SCALE, 2.5),
)
FLEETING = (Operation(concept(0, 12), OperationKind.ADD, -1.0),)
STANDING = (Operation(concept(0, 9), OperationKind.ADD, 1.0), Operation(concept(0, 10), OperationKind.ABLATE, 0.0))
"""Of the policy that stands through the run, for users of its own; the next one shows that a change arrives again."""
