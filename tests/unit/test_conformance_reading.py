"""How the kit compares rows and says what was asked."""

from __future__ import annotations

import numpy as np
import pytest

from recsae.conformance.asking import RefusedError, described
from recsae.conformance.expecting import INVALID, refused
from recsae.conformance.outcomes import BrokenError
from recsae.conformance.reading import FLOAT16_TOLERANCE, TOLERANCE, alike, difference, matrix, tolerance
from recsae.rpc.tensors import to_tensor
from recsae.v1 import common_pb2, recommender_pb2


def test_rounding_is_forgiven_and_more_is_not() -> None:
    rows = np.linspace(-3, 3, 24, dtype=np.float32).reshape(4, 6)
    assert alike(rows, rows.copy(), "x", "rows", "y") == "bit-identical"
    assert alike(rows + np.float32(1e-6), rows, "x", "rows", "y").startswith("equal within")
    with pytest.raises(BrokenError, match="rows differ"):
        alike(rows + np.float32(1e-3), rows, "x", "rows", "y")


def test_numbers_that_were_float16_may_differ_by_what_float16_rounds() -> None:
    halves = np.linspace(-3, 3, 24).astype(np.float16).astype(np.float32)
    assert tolerance(halves) == FLOAT16_TOLERANCE
    assert tolerance(halves + np.float32(1e-6)) == TOLERANCE
    assert tolerance(np.zeros(3, np.float32)) == TOLERANCE


def test_nan_and_other_shapes_are_infinitely_different() -> None:
    rows = np.ones((2, 3), np.float32)
    assert difference(np.full_like(rows, np.nan), rows) == np.inf
    assert difference(rows[:1], rows) == np.inf
    assert difference(rows[:0], rows[:0]) == 0.0


def test_a_tensor_of_another_shape_is_the_services_fault_and_the_sentence_names_both() -> None:
    with pytest.raises(BrokenError) as broken:
        matrix(to_tensor(np.ones((2, 3), np.float32)), "Embed", rows=1, dim=4)
    assert "[2, 3]" in broken.value.came
    assert "[1, 4]" in broken.value.remedy


def test_a_request_is_described_in_a_line_by_the_sizes_of_its_parts() -> None:
    request = recommender_pb2.RankRequest(
        model="tiny",
        activations=to_tensor(np.ones((2, 16), np.float32)),
        k=3,
        exclude=[recommender_pb2.ItemList(item_ids=["a", "b"])] * 2,
    )
    assert described("Rank", request) == 'Rank(model="tiny", activations [2, 16], k=3, 2 exclude)'
    histories = recommender_pb2.HistoryList(histories=[common_pb2.History(item_ids=["a"])] * 7)
    export = recommender_pb2.ExportActivationsRequest(histories=histories)
    assert described("ExportActivations", export) == "ExportActivations(histories(7 histories))"


@pytest.mark.parametrize(("code", "passes"), [("INVALID_ARGUMENT", True), ("INTERNAL", False), (None, False)])
def test_only_the_right_refusal_counts(code: str | None, passes: bool) -> None:
    def call() -> None:
        if code:
            raise RefusedError("Rank", "Rank()", code, "because")

    if passes:
        assert refused(call, "a wrong request", INVALID, "it is wrong") == code
        return
    with pytest.raises(BrokenError) as broken:
        refused(call, "a wrong request", INVALID, "it is wrong")
    assert "INVALID_ARGUMENT" in broken.value.remedy
    assert broken.value.came == (f"{code}: because" if code else "it was answered")
