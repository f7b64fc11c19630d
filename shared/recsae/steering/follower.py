"""Follows `WatchPlans` from a background thread: snapshot, then tail, and again after any gap.

A recommender starts one per model version and reads `current()` on each request. Whatever happens to the
interpreter, reading never blocks and never fails: the last good plan stays until it is too old. Not here: what a
plan does (`delta`) and how it is checked (`held_plan`).
"""

from __future__ import annotations

import hashlib
import queue
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc

from recsae.errors import CorruptArtifactError, FailedPreconditionError, RecsaeError
from recsae.rpc.status import error_from
from recsae.steering.delta import Encode, Steerer
from recsae.steering.held_plan import Arrival, HeldPlan
from recsae.steering.plans import PlanSet
from recsae.steering.receipts import UnsteeredReason
from recsae.steering.wire import seconds
from recsae.steering.wire_plans import plan_from
from recsae.telemetry.event_log import event_log
from recsae.v1 import steering_pb2, steering_pb2_grpc

if TYPE_CHECKING:
    from grpc import _CallIterator

_log = event_log(__name__)

HEARTBEAT_S = 2.0
"""How often the interpreter says that nothing changed."""
_SILENCE_S = 4 * HEARTBEAT_S
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 5.0
_ENCODER_TIMEOUT_S = 20.0
# A new stream after a clean end (the server drains, the stream's life is over) waits up to this: no stampede.
_REJOIN_S = 0.1


class _RejectedError(RecsaeError):
    """A plan came that cannot be used."""


Event = steering_pb2.WatchPlansResponse | None


class PlanFollower:
    """Keeps the plan of one model version current until closed."""

    def __init__(
        self,
        channel: grpc.Channel,
        model: str,
        model_version: str,
        *,
        watcher: str,
        max_age_s: float = 600.0,
        silence_s: float = _SILENCE_S,
        on_change: Callable[[], None] | None = None,
        on_rejected: Callable[[], None] | None = None,
    ) -> None:
        """`silence_s`: a stream that says nothing for so long is taken for dead.

        `on_change` runs after each change, `on_rejected` after each plan that could not be used.
        """
        self._stub = steering_pb2_grpc.SteeringStub(channel)
        self._held = HeldPlan(model, model_version, self._fetch_encoder, max_age_s=max_age_s)
        self._request = steering_pb2.WatchPlansRequest(model=model, watcher=watcher)
        self._silence_s = silence_s
        self._on_change = on_change
        self._on_rejected = on_rejected
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._call: grpc.Call | None = None
        self._reported = ""
        self._thread = threading.Thread(target=self._run, name=f"recsae-plans-{model}", daemon=True)

    def start(self) -> PlanFollower:
        """Starts following; returns itself."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Ends the stream and the thread."""
        self._stop.set()
        if (call := self._call) is not None:
            call.cancel()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    @property
    def revision(self) -> int:
        """Revision of the plan held; 0 = none."""
        return self._held.revision

    @property
    def age_s(self) -> float:
        """Seconds since the interpreter last confirmed the plan; infinite when none is held."""
        return self._held.age_s

    def now(self) -> float:
        """The interpreter's time in seconds since the epoch: what windows of policies are judged by. Takes no lock."""
        return self._held.now()

    @property
    def clock_offset_s(self) -> float:
        """The interpreter's clock less this machine's; 0 until it has said."""
        return self._held.clock_offset_s

    def current(self) -> Steerer | UnsteeredReason:
        """The plan to apply now, or why there is none. Takes no lock."""
        return self._held.current()

    def wait_for_revision(self, revision: int, timeout_s: float) -> bool:
        """Blocks until a plan of at least that revision is held; False when it took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._held.revision >= revision, timeout_s)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                received, error = self._follow_once()
            except Exception as unforeseen:  # whatever it is, a follower that ended would leave the plan to grow old
                received, error = False, RecsaeError(f"following the plans of {self._request.model} failed")
                error.__cause__ = unforeseen
            failures = 0 if received else failures + 1
            # A plan refused was reported already.
            if error is not None and failures <= 1 and not isinstance(error, _RejectedError):
                _log.warning("plan_stream_lost", model=self._request.model, code=error.code, exc_info=error)
            ceiling = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** min(failures, 10))
            self._stop.wait(random.uniform(0, ceiling if error is not None else _REJOIN_S))

    def _follow_once(self) -> tuple[bool, RecsaeError | None]:
        """One stream from its snapshot to its end: whether something good came, and what ended it when it failed."""
        events: queue.Queue[Event | RecsaeError] = queue.Queue()
        call = self._stub.WatchPlans(self._request)
        self._call = call
        reader = threading.Thread(target=_read, args=(call, events), name="recsae-plan-stream", daemon=True)
        reader.start()
        received = False
        try:
            while not self._stop.is_set():
                event = events.get(timeout=self._silence_s)
                if event is None or isinstance(event, RecsaeError):
                    return received, event
                if not self._handle(event, last=events.empty()):
                    return received, None
                received = True
            return received, None
        except _RejectedError as rejected:  # asked for again; where nothing else ever comes, each time a little later
            return received, rejected
        except queue.Empty:
            return received, RecsaeError(f"the interpreter said nothing for {self._silence_s:.0f} s")
        finally:
            call.cancel()
            reader.join(timeout=1)

    def _handle(self, event: steering_pb2.WatchPlansResponse, *, last: bool) -> bool:
        """Takes one event; False when a new snapshot is needed. `last`: no other one waits to be taken.

        _RejectedError for a plan that cannot be used: the one held stays, and the stream begins anew.
        """
        if event.WhichOneof("event") == "heartbeat":
            if not self._held.confirm(event.heartbeat.revision, _sent_at(event.heartbeat)):
                return False
            # Fetching may take longer than the time between heartbeats: no change of plans may queue behind it.
            if last:
                self._report(self._held.retry_encoder())
            return True
        try:
            plans = PlanSet(event.plans.revision, tuple(plan_from(plan) for plan in event.plans.plans))
            arrival = self._held.take(plans, _sent_at(event.plans))
        except RecsaeError as error:
            arrival = self._held.reject(error)
        if not arrival.taken and arrival.error is None:
            return False
        self._report(arrival)
        if not arrival.taken:
            if self._on_rejected is not None:
                self._on_rejected()
            raise _RejectedError("a plan was refused") from arrival.error
        with self._changed:
            self._changed.notify_all()
        if self._on_change is not None:
            self._on_change()
        return True

    def _report(self, arrival: Arrival) -> None:
        said = "" if arrival.error is None else str(arrival.error)
        # What stands in the way is tried again at each heartbeat, and said once.
        repeated, self._reported = said == self._reported, said
        if arrival.error is None or repeated:
            return
        event = "plan_encoder_missing" if arrival.taken else "plan_rejected"
        _log.error(event, model=self._request.model, revision=self._held.revision, exc_info=arrival.error)

    def _fetch_encoder(self, sae_version: str, dim: int) -> Encode:
        try:
            # Here and not above: a recommender whose plans only add needs no onnxruntime.
            from recsae.steering.encoder import OnnxEncoder
        except ImportError as error:
            raise FailedPreconditionError(
                "the plan holds operations that read latents (ablate, scale, set, cap), and onnxruntime, which runs "
                "the SAE's encoder, is not installed; install onnxruntime, or use operations of kind add alone"
            ) from error
        request = steering_pb2.GetEncoderRequest(sae_version=sae_version)
        try:
            answer = self._stub.GetEncoder(request, timeout=_ENCODER_TIMEOUT_S)
        except grpc.RpcError as error:
            raise error_from(error) from error
        digest = hashlib.sha256(answer.onnx).hexdigest()
        if digest != answer.sha256:
            raise CorruptArtifactError(
                f"the encoder of SAE {sae_version} has SHA-256 {digest}, promised was {answer.sha256}; fetch it again"
            )
        return OnnxEncoder(answer.onnx, dim)


def _sent_at(message: steering_pb2.PlanSet | steering_pb2.PlanHeartbeat) -> float | None:
    """The interpreter's time; None from a release that does not say."""
    return seconds(message.sent_at) if message.HasField("sent_at") else None


def _read(call: _CallIterator[steering_pb2.WatchPlansResponse], events: queue.Queue[Event | RecsaeError]) -> None:
    """Passes on what the stream says; None at its clean end."""
    try:
        for event in call:
            events.put(event)
        events.put(None)
    except grpc.RpcError as error:
        with suppress(Exception):
            call.cancel()
        events.put(error_from(error))
