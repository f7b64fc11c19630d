"""Requests that must not be answered: other versions, wrong shapes, more than fits; and the sentence that says why."""

from __future__ import annotations

import numpy as np

from recsae.conformance.asking import UNIMPLEMENTED, RefusedError
from recsae.conformance.checks.ranking import rank_request
from recsae.conformance.expecting import INVALID, TOO_LARGE, refused
from recsae.conformance.expecting import OTHER_VERSION as MISMATCH
from recsae.conformance.outcomes import BrokenError, Check, DoubtfulError, NotApplicableError
from recsae.conformance.probe import ALL, LAST, OTHER_VERSION, Probe
from recsae.rpc.tensors import to_tensor
from recsae.v1 import recommender_pb2
from recsae.v1.recommender_pb2 import HistoryList, ItemPage

_MOST_HISTORIES = 4_096
_MOST_LISTS = 1_024
_MOST_K = 1_000
# Statuses that clients make up themselves, or that carry no sentence by their nature.
_WITHOUT_SENTENCE = {UNIMPLEMENTED, "DEADLINE_EXCEEDED", "CANCELLED", "UNAVAILABLE"}


def other_version(probe: Probe) -> str:
    """Versions never mix."""
    why = f"version {probe.info.version} is loaded"
    page = ItemPage(limit=1)
    asked = f"ExportActivations of version {OTHER_VERSION}"
    refused(lambda: probe.export(items=page, model_version=OTHER_VERSION), asked, MISMATCH, why)
    request = recommender_pb2.ExportItemsRequest(model=probe.model, model_version=OTHER_VERSION, page=page)
    asked = f"ExportItems of version {OTHER_VERSION}"
    refused(lambda: probe.service.export_items(request), asked, (*MISMATCH, UNIMPLEMENTED), why)
    return ""


def other_version_ranked(probe: Probe) -> str:
    """Rank refuses activations of another version."""
    request = rank_request(probe, probe.cases[:1], k=3)
    request.model_version = OTHER_VERSION
    asked = f"Rank of activations of version {OTHER_VERSION}"
    return refused(lambda: probe.service.rank(request), asked, MISMATCH, f"version {probe.info.version} is loaded")


def wrong_dim(probe: Probe) -> str:
    """Activations of another length."""
    request = rank_request(probe, probe.cases[:1], k=3)
    rows = request.activations.shape[0]
    request.activations.CopyFrom(to_tensor(np.zeros((rows, probe.hook.dim + 1), np.float32)))
    asked = f"Rank of activations [{rows}, {probe.hook.dim + 1}]"
    return refused(lambda: probe.service.rank(request), asked, INVALID, f"the hook has dim {probe.hook.dim}")


def too_many_rows(probe: Probe) -> str:
    """More rows than max_export_rows do not come back."""
    longest = max(probe.cases, key=lambda case: len(case.history.item_ids)).history
    per = len(longest.item_ids) if probe.hook.all_positions and not probe.info.ignores_history else 1
    count = probe.most_rows // (per * probe.rows_per_subject) + 1
    if count > _MOST_HISTORIES:
        raise NotApplicableError(f"{_MOST_HISTORIES} histories fit max_export_rows {probe.most_rows}")
    rows = count * per * probe.rows_per_subject
    asked = f"ExportActivations of {rows} rows, max_export_rows is {probe.most_rows}"
    histories = HistoryList(histories=[longest] * count)

    def export() -> None:
        came = len(probe.export(histories=histories, positions=ALL if per > 1 else LAST).batch.subjects)
        if came <= probe.most_rows:
            raise NotApplicableError(f"only {came} rows came of {rows}")

    return refused(export, asked, TOO_LARGE, "say how many rows fit")


def too_many(probe: Probe) -> str:
    """More than the contract's bounds."""
    histories = HistoryList(histories=[probe.cases[0].history] * (_MOST_HISTORIES + 1))
    answered = []
    for what, source in (
        (f"{_MOST_HISTORIES + 1} histories", {"histories": histories}),
        ("a page of 65,537 items", {"items": ItemPage(limit=65_537)}),
    ):
        try:
            answer = probe.export(**source)
        except RefusedError as refusal:
            if refusal.code not in TOO_LARGE:
                raise
            continue
        rows = len(answer.batch.subjects)
        if rows > probe.most_rows:
            came = f"{rows} rows, max_export_rows is {probe.most_rows}"
            raise BrokenError(f"ExportActivations of {what}", came, f"refuse it with {' or '.join(TOO_LARGE)}")
        answered.append(what)
    if answered:
        asked = f"ExportActivations of {' and '.join(answered)}"
        raise DoubtfulError(asked, "an answer", "the contract promises callers less: refuse it with INVALID_ARGUMENT")
    return ""


def too_long_lists(probe: Probe) -> str:
    """More lists, and longer ones, than Rank may make."""
    request = rank_request(probe, probe.cases[:1], k=_MOST_K + 1)
    answered = []
    wide = rank_request(probe, probe.cases[:1], k=1)
    rows = probe.rows_per_subject * (_MOST_LISTS + 1)
    if probe.pairs:
        rows *= len(probe.candidates)
        wide.candidates.extend([wide.candidates[0]] * _MOST_LISTS)
    wide.activations.CopyFrom(to_tensor(np.zeros((rows, probe.hook.dim), np.float32)))
    for what, one in ((f"k={_MOST_K + 1}", request), (f"{_MOST_LISTS + 1} lists", wide)):
        if one is wide and one.passthrough:
            continue  # it would be refused for the passthrough's rows
        try:
            probe.service.rank(one)
        except RefusedError as refusal:
            if refusal.code not in TOO_LARGE:
                raise
            continue
        answered.append(what)
    if answered:
        asked = f"Rank with {' and '.join(answered)}"
        raise DoubtfulError(asked, "an answer", "the contract promises callers less: refuse it with INVALID_ARGUMENT")
    return ""


def sentences(probe: Probe) -> str:
    """Who is refused reads why."""
    seen = [one for one in probe.service.refusals if one.code not in _WITHOUT_SENTENCE]
    if not seen:
        raise NotApplicableError("nothing was refused")
    bare = [one for one in seen if len(one.sentence.split()) < 3]
    if bare:
        came = f"{bare[0].code} with {bare[0].sentence!r}, {len(bare)} refusals like it"
        raise BrokenError(
            bare[0].asked, came, "say in the status message what was wrong, with which value, and what to do"
        )
    return f"{len(seen)} refusals"


_ITEMS = ("model.items",)
_RANK = ("ranking.answers",)
CHECKS = (
    Check("refusals.other-version", "another version is refused with FAILED_PRECONDITION", other_version, _ITEMS),
    Check("refusals.ranked-version", "Rank refuses activations of another version", other_version_ranked, _RANK),
    Check("refusals.wrong-dim", "Rank refuses activations of another length", wrong_dim, _RANK),
    Check("refusals.rows", "more rows than max_export_rows are refused", too_many_rows, _ITEMS),
    Check("refusals.bounds", "4,096 histories and pages of 65,536 items at most", too_many, _ITEMS),
    Check("refusals.lists", "Rank makes at most 1,024 lists of 1,000 items", too_long_lists, _RANK),
    Check("refusals.sentences", "a refusal says in a sentence what was wrong", sentences, ("model.answers",)),
)
