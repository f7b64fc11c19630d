"""The servers compared: one crew of them for each catalogue size."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.serving.closed_loop import Load
from benchmarks.serving.crew import Crew, ask
from benchmarks.serving.pairs import median_interval
from benchmarks.serving.plans import Sent, for_everyone, nothing, thousand
from benchmarks.serving.processes import Served
from benchmarks.serving.spending import spend
from benchmarks.serving.world import World
from recsae.steering.policies import OperationKind
from recsae.v1 import common_pb2
from recsae_recommender.settings import RecommenderSettings

ECHO, ORT = "echo", "ort"
BARE, ALONE, NO_LIVE = "bare", "no_interpreter", "no_live_policy"
ADD, SCALE, WIDE, THOUSAND, RPC = "add", "scale_2048", "scale_4096", "thousand", "rpc"
STEERED = (ADD, SCALE, WIDE, THOUSAND, RPC)
_ECHO_THREADS = (4, 16, 32)
_PLAN_S = 30.0


@dataclass(frozen=True)
class Variant:
    """A recommender: what its interpreter serves (None = it has none), and what it is started with."""

    says: str
    sent: Callable[[World], Sent] | None = None
    module: str = "recsae_recommender"
    settings: Mapping[str, str] = field(default_factory=dict)


VARIANTS: Mapping[str, Variant] = {
    BARE: Variant("the same server without the steering code", module="benchmarks.serving.bare"),
    ALONE: Variant("no interpreter"),
    NO_LIVE: Variant("an interpreter, no live policy", nothing),
    ADD: Variant("one policy for everyone, `add`", lambda world: for_everyone(world, OperationKind.ADD, 2_048)),
    SCALE: Variant(
        "one for everyone, `scale`, SAE of 2,048", lambda world: for_everyone(world, OperationKind.SCALE, 2_048)
    ),
    WIDE: Variant(
        "one for everyone, `scale`, SAE of 4,096", lambda world: for_everyone(world, OperationKind.SCALE, 4_096)
    ),
    THOUSAND: Variant("1,000 live policies, 5 match", thousand),
    RPC: Variant(
        "as `add`, by the Steer RPC",
        lambda world: for_everyone(world, OperationKind.ADD, 2_048),
        settings={"STEERING": "rpc"},
    ),
}


def has_rpc() -> bool:
    """Whether this recommender can steer by RPC: a setting of its own."""
    return "steering" in RecommenderSettings.model_fields


def start(crew: Crew, names: tuple[str, ...], load: Load) -> int:
    """Starts recommenders, onnxruntime alone, and the best echo server; returns how many threads that has."""
    for name in names:
        variant = VARIANTS[name]
        sent = None if variant.sent is None else variant.sent(crew.world)
        crew.recommender(name, sent=sent, module=variant.module, settings=variant.settings)
    crew.direct(ORT)
    crew.wait()
    for name in names:
        _wait_for_plan(crew, name)
    answer = ask(crew.servers[names[-1]], crew.request(0)).SerializeToString()
    threads = _best_echo_threads(crew.world, answer, load)
    crew.echo(threads, answer, ECHO)
    crew.wait()
    return threads


def steered_share(served: Served) -> float:
    """Share of the lists served so far that were steered: an answer that is not is a cheap one."""
    lists = "recsae_recommend_total"
    return served.metric(lists, 'reason="steered"') / served.metric(lists)


def _wait_for_plan(crew: Crew, name: str) -> None:
    """Until the answers of a variant are what its name says; RuntimeError with its receipt when they do not become."""
    deadline = time.monotonic() + _PLAN_S
    while True:
        receipt = ask(crew.servers[name], crew.request(0)).receipt
        steered = receipt.reason == common_pb2.UNSTEERED_REASON_UNSPECIFIED
        idle = receipt.reason == common_pb2.UNSTEERED_REASON_NONE_MATCHED
        if steered if name in STEERED else idle or name != NO_LIVE:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} answers with receipt {receipt}")
        time.sleep(0.05)


def _best_echo_threads(world: World, answer: bytes, load: Load) -> int:
    """Of the usual thread-pool sizes the one that spends least on a call: a comparison with a good echo server."""
    with Crew(world) as crew:
        for threads in _ECHO_THREADS:
            crew.echo(threads, answer, str(threads))
        crew.wait()
        spent = spend(crew, load, in_flight=32, rounds=4, calls=640)
    return int(min(spent.us, key=lambda name: median_interval(spent.us[name]).median))
