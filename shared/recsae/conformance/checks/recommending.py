"""Recommend: lists with a receipt, and without steering the lists of the bare model, bit for bit."""

from __future__ import annotations

from recsae.conformance.asking import UNIMPLEMENTED, RefusedError
from recsae.conformance.outcomes import BrokenError, Check, DoubtfulError, NotApplicableError
from recsae.conformance.probe import Probe
from recsae.v1 import common_pb2, recommender_pb2
from recsae.v1.recommender_pb2 import RecommendResponse, Subject

_K = 5


def receipt(probe: Probe) -> str:
    """A list, its versions, and what steering did or why nothing."""
    case = probe.cases[0]
    try:
        answer = _recommend(probe, case)
    except RefusedError as refusal:
        if refusal.code == UNIMPLEMENTED:
            raise NotApplicableError("Recommend is not implemented") from refusal
        raise
    asked = f"Recommend with k={_K}"
    if not answer.HasField("receipt"):
        raise BrokenError(
            asked, "no receipt", "say what steering did: the policies applied, or the reason there is none"
        )
    found = answer.receipt
    if not found.applied and found.reason == common_pb2.UNSTEERED_REASON_UNSPECIFIED:
        raise BrokenError(
            asked, "a receipt with neither a policy nor a reason", "set reason, e.g. NONE_MATCHED or NO_PLAN"
        )
    if found.applied and found.reason != common_pb2.UNSTEERED_REASON_UNSPECIFIED:
        raise BrokenError(
            asked, "a receipt with policies and a reason for none", "leave reason unset when one was applied"
        )
    versions = (answer.triple.model_version, found.triple.model_version)
    if set(versions) != {probe.info.version}:
        came = f"model_version {versions[0]!r}, and {versions[1]!r} in the receipt"
        raise BrokenError(asked, came, f"name the version it was computed by, {probe.info.version}, in both")
    if not answer.request_id:
        raise DoubtfulError(asked, "no request_id", "make one where x-request-id brings none: logs are found by it")
    return _state(answer)


def length(probe: Probe) -> str:
    """At most k items, best first, none of the history."""
    case = probe.cases[-1]
    request = _request(probe, case)
    request.include_seen = False
    if probe.pairs:
        request.candidate_item_ids[:] = probe.item_ids
    answer = probe.service.recommend(request)
    seen = set(_history(probe, case)) & {item.item_id for item in answer.items}
    if len(answer.items) > _K or not answer.items:
        raise BrokenError(f"Recommend with k={_K}", f"{len(answer.items)} items", f"send at most {_K}, at least one")
    if seen and not probe.info.ignores_history:
        came = f"{sorted(seen)} of the history"
        raise BrokenError("Recommend without include_seen", came, "leave items of the history out")
    scores = [item.score for item in answer.items]
    if scores != sorted(scores, reverse=True):
        raise BrokenError("Recommend", f"scores {scores}", "sort by score, the highest first")
    return ""


def unsteered(probe: Probe) -> str:
    """Without steering, what the trunk and the head alone give."""
    for case in probe.cases[:4]:
        recommended = _recommend(probe, case)
        if recommended.receipt.applied:
            raise NotApplicableError("a policy applies to bare requests; ask when none is live for everyone")
        ids = probe.candidates if probe.pairs else ()
        embedded = probe.embed(case, ids)
        ranked = probe.service.rank(
            recommender_pb2.RankRequest(
                model=probe.model,
                activations=embedded.batch.activations,
                passthrough=embedded.batch.passthrough,
                k=_K,
                exclude=[] if probe.pairs else [recommender_pb2.ItemList(item_ids=embedded.history.item_ids)],
                candidates=[recommender_pb2.ItemList(item_ids=ids)] if probe.pairs else [],
            )
        )
        came = [(item.item_id, item.score) for item in recommended.items]
        wanted = [(item.item_id, item.score) for lists in ranked.lists for item in lists.items]
        if came != wanted:
            raise BrokenError(
                "Recommend, and Embed followed by Rank without the history",
                _difference(came, wanted),
                "touch nothing when no policy matches: same trunk, same head, same bits",
            )
    return "bit-identical"


def candidates(probe: Probe) -> str:
    """Only candidates come, none excluded."""
    case, wanted = probe.cases[0], probe.candidates
    request = _request(probe, case)
    request.candidate_item_ids[:] = wanted
    request.exclude_item_ids[:] = wanted[:1]
    request.include_seen = True
    came = {item.item_id for item in probe.service.recommend(request).items}
    if came != set(wanted[1:]):
        asked = f"Recommend of the candidates {wanted} without {wanted[:1]}"
        raise BrokenError(asked, f"{sorted(came)}", "rank the candidates that are not excluded, and no others")
    return ""


def _history(probe: Probe, case: Subject) -> list[str]:
    """The history that is read for a subject: its own, or the stored one of its user."""
    return list(case.history.item_ids) or list(probe.embed(case).history.item_ids)


def _difference(left: list[tuple[str, float]], right: list[tuple[str, float]]) -> str:
    for (item, score), (other, other_score) in zip(left, right, strict=False):
        if (item, score) != (other, other_score):
            return f"{item!r} at {score:.9g}, and {other!r} at {other_score:.9g}"
    return f"{len(left)} items, and {len(right)}"


def _recommend(probe: Probe, case: Subject) -> RecommendResponse:
    return probe.service.recommend(_request(probe, case))


def _request(probe: Probe, case: Subject) -> recommender_pb2.RecommendRequest:
    request = recommender_pb2.RecommendRequest(model=probe.model, user_id=case.user_id, k=_K)
    if case.HasField("history"):
        request.history.CopyFrom(case.history)
    if probe.pairs:
        request.candidate_item_ids[:] = probe.candidates
        request.include_seen = True
    return request


def _state(answer: RecommendResponse) -> str:
    if answer.receipt.applied:
        return f"{len(answer.receipt.applied)} policies applied"
    reason = common_pb2.UnsteeredReason.Name(answer.receipt.reason)
    return f"unsteered: {reason.removeprefix('UNSTEERED_REASON_').lower()}"


_NEEDS = ("activations.finite", "recommending.receipt")
CHECKS = (
    Check("recommending.receipt", "a list says its versions and what steering did", receipt, ("activations.finite",)),
    Check("recommending.length", "at most k items, best first, none of the history", length, _NEEDS),
    Check("recommending.candidates", "candidates and exclusions are kept to", candidates, _NEEDS),
    Check(
        "recommending.unsteered",
        "without steering the bare model's list, bit for bit",
        unsteered,
        (*_NEEDS, "activations.embed", "ranking.answers", "ranking.exclusions"),
    ),
)
