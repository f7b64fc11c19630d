"""ExportItems: the items the head ranks, and for dot-product heads the vectors it scores them by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from recsae.conformance.asking import UNIMPLEMENTED, RefusedError
from recsae.conformance.checks.pages import check_cover, check_once, page_size
from recsae.conformance.checks.ranking import rank
from recsae.conformance.outcomes import BrokenError, Check, NotApplicableError
from recsae.conformance.probe import Probe
from recsae.conformance.reading import SCORE_TOLERANCE, Floats, matrix, tolerance, vector
from recsae.v1 import recommender_pb2
from recsae.v1.recommender_pb2 import ExportItemsResponse

_MOST_PAGES = 1_000
_SCORED = 20


def listed(probe: Probe) -> str:
    """The items of ExportItems are those of the items source."""
    ids: list[str] = []
    for pages, answer in enumerate(_pages(probe), start=1):
        if answer.model_version != probe.info.version:
            came = f"model_version {answer.model_version!r}"
            raise BrokenError("ExportItems", came, f"name the version the items belong to: {probe.info.version}")
        if answer.titles and len(answer.titles) != len(answer.item_ids):
            came = f"{len(answer.titles)} titles for {len(answer.item_ids)} items"
            raise BrokenError("ExportItems", came, "send a title per item, in the same order, or none")
        ids += answer.item_ids
        if pages == _MOST_PAGES:
            return f"{len(ids)} items in {pages} pages"
    check_once(ids, "ExportItems page by page")
    check_cover(probe, ids, "ExportItems until next_cursor is empty")
    strange = set(probe.item_ids) - set(ids)
    if strange:
        came = f"item {min(strange)!r} of the items source is missing"
        raise BrokenError("ExportItems until next_cursor is empty", came, "list the same items in both")
    return f"{len(ids)} items"


def vectors(probe: Probe) -> str:
    """Vectors [n, d] of a dot-product head; none of another."""
    answer = next(iter(_pages(probe)))
    dot = probe.info.head == recommender_pb2.HEAD_KIND_DOT_PRODUCT
    if not dot:
        if answer.HasField("vectors"):
            came = "vectors, though the head is no dot product"
            raise BrokenError("ExportItems", came, "say HEAD_KIND_DOT_PRODUCT, or leave the vectors out")
        raise NotApplicableError("the head is no dot product")
    if not answer.HasField("vectors"):
        raise BrokenError(
            "ExportItems of a HEAD_KIND_DOT_PRODUCT model", "no vectors", "send them, or say HEAD_KIND_OPAQUE"
        )
    rows = len(answer.item_ids)
    found = matrix(answer.vectors, "ExportItems' vectors", rows=rows, dim=probe.hook.dim)
    biases = vector(answer.biases, "ExportItems' biases", rows) if answer.HasField("biases") else None
    if not np.isfinite(found).all() or (biases is not None and not np.isfinite(biases).all()):
        raise BrokenError("ExportItems", "NaN or infinite values", "send finite numbers only")
    return f"[{rows}, {probe.hook.dim}]{' and biases' if biases is not None else ''}"


def scores(probe: Probe) -> str:
    """Scores are activation . vector + bias."""
    if probe.info.head != recommender_pb2.HEAD_KIND_DOT_PRODUCT:
        raise NotApplicableError("the head is no dot product")
    page = next(iter(_pages(probe)))
    ids = list(page.item_ids)[:_SCORED]
    found = matrix(page.vectors, "ExportItems' vectors")[: len(ids)].astype(np.float64)
    bias = vector(page.biases, "ExportItems' biases", len(page.item_ids)) if page.HasField("biases") else None
    cases = probe.cases[:2]
    rows = probe.matrix(probe.of(cases), len(cases))
    answer = rank(probe, cases, k=len(ids), candidates=[ids] * len(cases))
    worst, limit = 0.0, max(SCORE_TOLERANCE, 5 * tolerance(rows))
    for row, ranked in zip(rows, answer.lists, strict=True):
        expected = _scores(found, bias, row)
        for item in ranked.items:
            wanted = expected[ids.index(item.item_id)]
            off = abs(item.score - wanted) / max(1.0, abs(wanted))
            if not off <= limit:
                came = f"{item.item_id!r} scored {item.score:.6g}, activation . vector + bias is {wanted:.6g}"
                raise BrokenError(
                    "Rank of exported activations", came, "export what the head multiplies, or HEAD_KIND_OPAQUE"
                )
            worst = max(worst, off)
    return f"equal within {worst:.1g}"


def _scores(vectors: np.ndarray[tuple[int, int], np.dtype[np.float64]], bias: Floats | None, row: Floats) -> Floats:
    found: Floats = (vectors @ row).astype(np.float32)
    return found if bias is None else found + bias[: len(found)]


def _pages(probe: Probe) -> Iterator[ExportItemsResponse]:
    cursor = ""
    seen = {cursor}
    while True:
        page = recommender_pb2.ItemPage(cursor=cursor, limit=page_size(probe))
        request = recommender_pb2.ExportItemsRequest(model=probe.model, model_version=probe.info.version, page=page)
        try:
            answer = probe.service.export_items(request)
        except RefusedError as refusal:
            if refusal.code != UNIMPLEMENTED or probe.info.head == recommender_pb2.HEAD_KIND_DOT_PRODUCT:
                raise
            raise NotApplicableError("ExportItems is not implemented, and the head is no dot product") from refusal
        yield answer
        cursor = answer.next_cursor
        if not cursor:
            return
        if cursor in seen:
            raise BrokenError(
                "ExportItems page by page", f"cursor {cursor!r} a second time", "let each cursor go on further"
            )
        seen.add(cursor)


CHECKS = (
    Check("items.listed", "every item comes once, those of the items source", listed, ("model.items",)),
    Check("items.vectors", "a dot-product head comes with vectors [n, d]", vectors, ("items.listed",)),
)
SCORES = (
    Check(
        "ranking.scores",
        "Rank scores by activation . vector + bias",
        scores,
        ("items.vectors", "ranking.candidates", "activations.finite"),
    ),
)
