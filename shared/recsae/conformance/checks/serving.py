"""The service as a process: its health, and whether it lets go of calls that nobody waits for any more."""

from __future__ import annotations

import time

from recsae.conformance.asking import UNIMPLEMENTED, RefusedError
from recsae.conformance.outcomes import BrokenError, Check, DoubtfulError, NotApplicableError
from recsae.conformance.probe import ALL, LAST, Probe
from recsae.v1 import recommender_pb2

_ABANDONED = 32
# Long enough to arrive and be begun, also on a busy machine.
_ABANDONED_AFTER_S = 0.05
# A small answer takes milliseconds; a quarter of its deadline more, and expired work stands in its way.
_NOTICED_SHARE = 0.25


def health(probe: Probe) -> str:
    """The health service says SERVING."""
    try:
        state = probe.service.health()
    except RefusedError as refusal:
        if refusal.code == UNIMPLEMENTED:
            raise NotApplicableError("grpc.health.v1.Health is not implemented; load balancers ask it") from refusal
        raise
    if state != "SERVING":
        raise BrokenError("Health.Check", state, "serve only when the model answers, and say so")
    return state


def abandoned(probe: Probe) -> str:
    """Calls given up leave the server free."""
    request = recommender_pb2.ExportActivationsRequest(
        model=probe.model,
        model_version=probe.info.version,
        hook=probe.hook.name,
        positions=ALL if probe.hook.all_positions else LAST,
    )
    if probe.cases[0].user_id:
        request.subjects.subjects.extend(probe.cases)
    else:
        request.histories.histories.extend(case.history for case in probe.cases)
    before = _answer_s(probe)
    probe.service.abandon(request, _ABANDONED, _ABANDONED_AFTER_S)
    asked = f"GetModel after {_ABANDONED} exports given up after {1000 * _ABANDONED_AFTER_S:.0f} ms"
    remedy = "end a call's work when its deadline has passed or its caller has gone"
    try:
        after = _answer_s(probe)
    except RefusedError as refusal:
        raise BrokenError(asked, f"{refusal.code} within {probe.service.timeout_s:g} s", remedy) from refusal
    if after > before + max(1.0, _NOTICED_SHARE * probe.service.timeout_s):
        raise DoubtfulError(asked, f"an answer after {after:.1f} s instead of {before:.3f} s", remedy)
    return f"answered in {1000 * after:.0f} ms"


def _answer_s(probe: Probe) -> float:
    start = time.perf_counter()
    probe.service.get_model(recommender_pb2.GetModelRequest(model=probe.model))
    return time.perf_counter() - start


CHECKS = (
    Check("serving.health", "the health service says SERVING, where there is one", health, ("model.answers",)),
    Check(
        "serving.abandoned",
        "calls given up do not keep others waiting",
        abandoned,
        ("model.items",),
    ),
)
