"""Rank: lists from activations, of the length and the items asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsae.conformance.asking import UNIMPLEMENTED, RefusedError
from recsae.conformance.expecting import refused
from recsae.conformance.outcomes import BrokenError, Check, NotApplicableError
from recsae.conformance.probe import UNKNOWN_ITEM, Probe
from recsae.conformance.reading import Floats, alike, matrix
from recsae.rpc.tensors import to_tensor
from recsae.v1 import recommender_pb2
from recsae.v1.common_pb2 import ActivationBatch
from recsae.v1.recommender_pb2 import RankResponse, Subject

_K = 5


def answers(probe: Probe) -> str:
    """A list per subject, with the version that ranked it."""
    cases = _cases(probe)
    try:
        answer = rank(probe, cases, k=_K)
    except RefusedError as refusal:
        if refusal.code == UNIMPLEMENTED and not probe.hook.steerable:
            raise NotApplicableError("Rank is not implemented, and the hook is not steerable") from refusal
        raise
    if answer.model_version != probe.info.version:
        came = f"model_version {answer.model_version!r}"
        raise BrokenError(f"Rank of {len(cases)} lists", came, f"name the version that ranked: {probe.info.version}")
    return f"{len(answer.lists)} lists"


def length(probe: Probe) -> str:
    """Lists have k items, 10 for k = 0, fewer only where fewer may come."""
    cases = _cases(probe)
    for k, wanted in ((3, 3), (0, 10)):
        expected = min(wanted, _rankable(probe))
        for ranked in rank(probe, cases, k=k).lists:
            if len(ranked.items) != expected:
                raise BrokenError(f"Rank with k={k}", f"{len(ranked.items)} items", f"send {expected}; k = 0 means 10")
    return ""


def best_first(probe: Probe) -> str:
    """Scores fall along a list, and no item comes twice."""
    for ranked in rank(probe, _cases(probe), k=min(50, _rankable(probe))).lists:
        scores = [item.score for item in ranked.items]
        if not np.isfinite(scores).all():
            raise BrokenError("Rank", "a score that is not finite", "leave items without a score out")
        rise = next((place for place in range(1, len(scores)) if scores[place] > scores[place - 1]), None)
        if rise is not None:
            came = f"score {scores[rise]:.6g} at place {rise + 1} after {scores[rise - 1]:.6g}"
            raise BrokenError("Rank", came, "sort by score, the highest first")
        ids = [item.item_id for item in ranked.items]
        if len(set(ids)) < len(ids) or "" in ids:
            raise BrokenError("Rank", "an item twice, or without an id", "rank every item once, by its id")
    return ""


def exclusions(probe: Probe) -> str:
    """Items excluded never come."""
    cases = _cases(probe)
    before = rank(probe, cases, k=_K)
    tops = [[item.item_id for item in ranked.items[:2]] for ranked in before.lists]
    after = rank(probe, cases, k=_K, exclude=tops)
    for place, (top, ranked) in enumerate(zip(tops, after.lists, strict=True)):
        back = set(top) & {item.item_id for item in ranked.items}
        if back:
            asked = f"Rank without {top} in list {place}"
            raise BrokenError(asked, f"{sorted(back)} came", "mask the items of `exclude` before taking the best k")
    return ""


def candidates(probe: Probe) -> str:
    """Only candidates come, and all of them where k allows."""
    cases = _cases(probe)
    wanted = [probe.candidates[place % 2 :] for place in range(len(cases))]
    answer = rank(probe, cases, k=len(probe.candidates), candidates=wanted)
    for given, ranked in zip(wanted, answer.lists, strict=True):
        came = {item.item_id for item in ranked.items}
        if came != set(given):
            remedy = "rank the items of `candidates` and no others, each list its own"
            raise BrokenError(f"Rank of the candidates {given}", f"{sorted(came)}", remedy)
    return ""


def unknown_candidate(probe: Probe) -> str:
    """A candidate the model does not know is refused."""
    cases = _cases(probe)[:1]
    request = rank_request(probe, cases, k=_K)
    del request.candidates[:]
    if probe.pairs:
        request.candidates.add(item_ids=[UNKNOWN_ITEM, *probe.candidates[1:]])
    else:
        request.candidates.add(item_ids=[UNKNOWN_ITEM])
    asked = f'Rank of the candidate "{UNKNOWN_ITEM}"'
    codes = ("INVALID_ARGUMENT", "NOT_FOUND")
    return refused(lambda: probe.service.rank(request), asked, codes, "no item has that id")


def alone(probe: Probe) -> str:
    """A list is the same alone and beside others."""
    cases = _cases(probe)
    together = rank(probe, cases, k=_K)
    parts = [rank(probe, [case], k=_K).lists[0] for case in cases]
    remedy = "rank every list by its own rows"
    return alike(_scores(parts), _scores(together.lists), "Rank of each list alone and of all", "scores", remedy)


def reads_activations(probe: Probe) -> str:
    """The scores come from the activations sent."""
    cases = _cases(probe)[:1]
    request = rank_request(probe, cases, k=_K)
    before = probe.service.rank(request)
    rows = matrix(request.activations, "ExportActivations")
    request.activations.CopyFrom(to_tensor((rows * np.float32(-2) + np.float32(0.1)).astype(np.float32)))
    if before.lists == probe.service.rank(request).lists:
        remedy = "go on from the activations sent: steering works by changing them"
        raise BrokenError("Rank of an activation and of another", "the same list with the same scores", remedy)
    return ""


def passthrough(probe: Probe) -> str:
    """What crosses the cut beside the activation has a row per activation, and Rank takes it back."""
    cases = _cases(probe)
    batch = probe.of(cases, candidates=probe.candidates if probe.pairs else ()).batch
    if not batch.passthrough:
        raise NotApplicableError("nothing but the activation crosses the cut")
    rows = len(matrix(batch.activations, "ExportActivations"))
    for one in batch.passthrough:
        shape = list(one.tensor.shape)
        if not one.name or not shape or shape[0] != rows:
            came = f"{one.name!r} of shape {shape} for {rows} rows"
            raise BrokenError(
                "ExportActivations' passthrough", came, "name each tensor and give it a row per activation"
            )
    rank(probe, cases, k=_K)
    return ", ".join(one.name for one in batch.passthrough)


def rank_request(
    probe: Probe,
    cases: Sequence[Subject],
    *,
    k: int,
    exclude: Sequence[Sequence[str]] = (),
    candidates: Sequence[Sequence[str]] = (),
) -> recommender_pb2.RankRequest:
    """Rank of the exported activations of `cases`; hooks with a row per pair rank the probe's candidates."""
    if probe.pairs:
        candidates = candidates or [probe.candidates] * len(cases)
        batch = _joined([_rows(probe, [case], ids) for case, ids in zip(cases, candidates, strict=True)])
    else:
        batch = _rows(probe, cases, ())
    return recommender_pb2.RankRequest(
        model=probe.model,
        model_version=probe.info.version,
        activations=batch.activations,
        passthrough=batch.passthrough,
        k=k,
        exclude=[recommender_pb2.ItemList(item_ids=ids) for ids in exclude],
        candidates=[recommender_pb2.ItemList(item_ids=ids) for ids in candidates],
    )


def rank(
    probe: Probe,
    cases: Sequence[Subject],
    *,
    k: int,
    exclude: Sequence[Sequence[str]] = (),
    candidates: Sequence[Sequence[str]] = (),
) -> RankResponse:
    """The answer to `rank_request`; `BrokenError` unless it has a list per case."""
    answer = probe.service.rank(rank_request(probe, cases, k=k, exclude=exclude, candidates=candidates))
    if len(answer.lists) != len(cases):
        came = f"{len(answer.lists)} lists"
        raise BrokenError(
            f"Rank of {len(cases)} lists", came, "send one list each: the rows of a list follow each other"
        )
    return answer


def lists_alike(left: Sequence[recommender_pb2.RankedList], right: Sequence[recommender_pb2.RankedList]) -> bool:
    """Whether items and scores are the same bit for bit; titles do not count."""
    pairs = [[[(item.item_id, item.score) for item in ranked.items] for ranked in side] for side in (left, right)]
    return pairs[0] == pairs[1]


def _rows(probe: Probe, cases: Sequence[Subject], candidates: Sequence[str]) -> ActivationBatch:
    """Exported rows of these cases, as many as there have to be."""
    answer = probe.of(cases, candidates=candidates)
    probe.matrix(answer, len(cases) * (len(candidates) or probe.rows_per_subject))
    return answer.batch


def _cases(probe: Probe) -> list[Subject]:
    return probe.cases[:4]


def _rankable(probe: Probe) -> int:
    return len(probe.candidates) if probe.pairs else probe.info.item_count


def _scores(lists: Sequence[recommender_pb2.RankedList]) -> Floats:
    return np.array([item.score for ranked in lists for item in ranked.items], dtype=np.float32)


def _joined(batches: Sequence[ActivationBatch]) -> ActivationBatch:
    """Batches one below the other: rows are contiguous, so their bytes follow each other."""
    joined = ActivationBatch()
    joined.CopyFrom(batches[0])
    for batch in batches[1:]:
        joined.activations.shape[0] += batch.activations.shape[0]
        joined.activations.data += batch.activations.data
        for mine, other in zip(joined.passthrough, batch.passthrough, strict=True):
            mine.tensor.shape[0] += other.tensor.shape[0]
            mine.tensor.data += other.tensor.data
    return joined


_VALUES = ("activations.finite", "activations.order", "activations.repeatable")
_ANSWERS = (*_VALUES, "ranking.answers")
CHECKS = (
    Check("ranking.answers", "Rank goes on from activations of a steerable hook", answers, _VALUES),
    Check("ranking.length", "a list has k items; k = 0 means 10", length, _ANSWERS),
    Check("ranking.best-first", "best first, every item once, scores finite", best_first, _ANSWERS),
    Check("ranking.exclusions", "excluded items never come", exclusions, _ANSWERS),
    Check("ranking.candidates", "candidates and no others are ranked", candidates, _ANSWERS),
    Check("ranking.unknown-candidate", "unknown candidates are refused", unknown_candidate, _ANSWERS),
    Check("ranking.alone", "a list is the same alone and beside others", alone, (*_ANSWERS, "activations.alone")),
    Check("ranking.reads", "scores come from the activations sent", reads_activations, _ANSWERS),
    Check("ranking.passthrough", "what else crosses the cut goes out and comes back", passthrough, _ANSWERS),
)
