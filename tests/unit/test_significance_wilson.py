"""Wilson's interval, the one that all shares use."""

from __future__ import annotations

import numpy as np
import pytest

from recsae.significance import wilson


def test_wilson_s_interval_is_the_published_one() -> None:
    low, high = wilson(81 / 263, 263)  # Newcombe 1998, table I, method 3
    assert (float(low), float(high)) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_shares_of_nothing_may_be_anything_and_perfect_ones_have_a_width() -> None:
    low, high = wilson(np.array([0.0, 1.0, 0.0]), np.array([0, 10, 10]))
    np.testing.assert_allclose(low, [0, 0.7225, 0], atol=1e-4)
    np.testing.assert_allclose(high, [1, 1, 0.2775], atol=1e-4)
