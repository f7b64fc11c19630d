"""All checks in order, and their run: one that needs a failed one is skipped, every fault becomes a sentence."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from recsae.conformance.asking import DEADLINE_EXCEEDED, UNIMPLEMENTED, RefusedError, Service
from recsae.conformance.checks import (
    activations,
    items,
    models,
    pages,
    positions,
    ranking,
    recommending,
    refusing,
    serving,
    steering,
    subjects,
)
from recsae.conformance.outcomes import BrokenError, Check, NotApplicableError, Outcome, Verdict
from recsae.conformance.probe import Probe

_REMEDIES = {
    UNIMPLEMENTED: "implement it",
    DEADLINE_EXCEEDED: "answer in time, or refuse with RESOURCE_EXHAUSTED what takes too long",
    "UNAVAILABLE": "see whether the service runs there and takes plaintext or TLS as this call did",
    "UNAUTHENTICATED": "give a token: recsae --token",
    "PERMISSION_DENIED": "give a token whose role may read: recsae --token",
    "RESOURCE_EXHAUSTED": "name in max_export_rows what fits an answer",
    "INTERNAL": "the server's own log has the error",
    "UNKNOWN": "the server's own log has the error",
}


def all_checks() -> tuple[Check, ...]:
    """In the order they are run and shown; what builds on others comes after them."""
    return (
        *models.CHECKS,
        *pages.FIRST,
        *activations.CHECKS,
        *positions.CHECKS,
        *subjects.CHECKS,
        *pages.CHECKS,
        *items.CHECKS,
        *ranking.CHECKS,
        *items.SCORES,
        *recommending.CHECKS,
        *steering.CHECKS,
        *refusing.CHECKS,
        *serving.CHECKS,  # the last one may leave the server busy
    )


def run(service: Service, model: str = "", checks: Sequence[Check] | None = None) -> Iterator[Outcome]:
    """Outcomes as they come. `model` "" = the server's default."""
    probe = Probe(service, model)
    found: dict[str, Outcome] = {}
    for check in all_checks() if checks is None else checks:
        outcome = _outcome(check, probe, found)
        found[check.name] = outcome
        yield outcome


def _outcome(check: Check, probe: Probe, before: Mapping[str, Outcome]) -> Outcome:
    for need in check.needs:
        needed = before.get(need)
        if needed is None or needed.verdict == Verdict.FAILED:
            return Outcome(check, Verdict.SKIPPED, note=f"needs {need}, which {'failed' if needed else 'was not run'}")
        if needed.verdict == Verdict.SKIPPED:
            return Outcome(check, Verdict.SKIPPED, note=needed.note)
    start = time.perf_counter()
    try:
        note = check.run(probe)
    except NotApplicableError as reason:
        return Outcome(check, Verdict.SKIPPED, note=str(reason))
    except BrokenError as broken:
        spent = time.perf_counter() - start
        return Outcome(check, broken.verdict, "", broken.asked, broken.came, broken.remedy, spent)
    except RefusedError as refused:
        spent = time.perf_counter() - start
        came = f"{refused.code}: {refused.sentence}" if refused.sentence else refused.code
        if refused.code == DEADLINE_EXCEEDED:
            came = f"no answer within {probe.service.timeout_s:g} s"
        remedy = _REMEDIES.get(refused.code, "answer the request")
        return Outcome(check, Verdict.FAILED, "", refused.asked, came, remedy, spent)
    except (LookupError, ValueError) as error:
        spent = time.perf_counter() - start
        came = f"an answer that cannot be read: {type(error).__name__}: {error}"
        return Outcome(check, Verdict.FAILED, "", check.contract, came, "send what the contract describes", spent)
    return Outcome(check, Verdict.PASSED, note=note, seconds=time.perf_counter() - start)
