"""Windows: every interaction gives exactly one row, computed with items before it."""

from __future__ import annotations

import numpy as np
import pytest

from recsae.datasets.windows import CONTEXT_ITEMS, cut, window_starts


@pytest.mark.parametrize("length", [0, 1, 7, 49, 50, 51, 60, 99, 100, 101, 237])
@pytest.mark.parametrize("max_history", [1, 3, 20, 50])
def test_kept_rows_cover_every_item_once_in_order(length: int, max_history: int) -> None:
    kept = [at for window in cut(length, max_history) for at in range(window.keep, window.end)]
    assert kept == list(range(length))


@pytest.mark.parametrize("length", [51, 60, 101, 237])
def test_windows_fit_the_model_and_the_newest_is_what_serving_reads(length: int) -> None:
    windows = cut(length, 50)
    assert all(0 < window.end - window.begin <= 50 for window in windows)
    assert (windows[-1].begin, windows[-1].end) == (length - 50, length)


def test_no_row_is_taken_from_the_edge_of_a_window() -> None:
    for window in cut(237, 50):
        assert window.begin == 0 or window.keep - window.begin == CONTEXT_ITEMS


def test_a_short_history_is_one_window() -> None:
    assert [(w.begin, w.end, w.keep) for w in cut(50, 50)] == [(0, 50, 0)]


@pytest.mark.parametrize("length", [1, 7, 50, 51, 60, 99, 100, 101, 237])
@pytest.mark.parametrize("max_history", [1, 3, 20, 50])
def test_starts_by_arithmetic_equal_those_of_the_windows(length: int, max_history: int) -> None:
    wanted = [window.begin for window in cut(length, max_history) for _ in range(window.keep, window.end)]
    found = window_starts(np.full(length, length), np.arange(length), max_history)
    assert found.tolist() == wanted
