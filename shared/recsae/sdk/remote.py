"""Steering by the interpreter itself, for a Python recommender that would rather not hold plans.

One call per batch; `recsae.steering.remote` says what becomes of it when the interpreter is of no use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import grpc

from recsae.rpc.client import ClientOptions, channel, check_address
from recsae.steering.plans import DEFAULT_NORM_BUDGET
from recsae.steering.remote import RemoteLimits, RemoteSteering, SteerCall
from recsae.steering.wire_steer import SteeredModel


def steer_by(
    interpreter: str,
    *,
    model: str,
    version: str,
    hook: str,
    options: ClientOptions | None = None,
    timeout_s: float = 0.05,
    norm_budget: float = DEFAULT_NORM_BUDGET,
    on_call: Callable[[SteerCall], None] = lambda _call: None,
) -> RemoteSteering:
    """Steering of one model version at its first hook by the interpreter at `host:port`; never raises.

    Call `steer(x, contexts)` with rows float32 [n, d] once per batch, `close()` at the end or use it in a `with`.
    `timeout_s` bounds a call, `norm_budget` the change that is accepted; `on_call` is told how each batch fared.
    """

    def opened() -> grpc.Channel:
        check_address(interpreter)
        return channel(interpreter, replace(options or ClientOptions(), retries=False))

    limits = RemoteLimits(timeout_s, norm_budget)
    return RemoteSteering(opened, SteeredModel(model, version, hook), limits=limits, on_call=on_call)
