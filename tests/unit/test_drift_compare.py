"""Comparison: known shifts are found, no shift is not, and the parts of the divergence add up.

Statistical tests fix their seeds; the false-alarm rate each one accepts is stated beside it.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.drift.compare import compare, js_terms
from recsae.drift.counters import ConceptCounters
from recsae.drift.panes import Pane
from recsae.drift.record import MAX_LISTED, build_record
from recsae.drift.states import DriftState
from recsae.errors import FailedPreconditionError
from recsae.significance import benjamini_hochberg

WIDTH = 40
RATES = np.linspace(0.02, 0.5, WIDTH)


def counters(rng: np.random.Generator, rows: int, rates: NDArray[np.float64]) -> ConceptCounters:
    made = ConceptCounters(len(rates))
    made.n = rows
    made.fired = rng.binomial(rows, rates).astype(np.int64)
    made.total = 2.0 * made.fired.astype(np.float64)
    made.fvu_numerator, made.fvu_denominator = rows * 0.1, float(rows)
    return made


def panes(rng: np.random.Generator, rates: NDArray[np.float64], count: int = 10, rows: int = 200) -> list[Pane]:
    return [Pane(30 * number, counters(rng, rows, rates)) for number in range(count)]


def test_a_tripled_and_a_vanished_concept_are_found_and_no_other() -> None:
    rng = np.random.default_rng(1)
    shifted = RATES.copy()
    shifted[5], shifted[30] = RATES[5] * 3, 0.0
    comparison = compare(counters(rng, 20_000, RATES), panes(rng, shifted))
    assert np.flatnonzero(comparison.moved).tolist() == [5, 30]
    assert comparison.log2_ratio[5] == pytest.approx(np.log2(3), abs=0.3)
    assert comparison.log2_ratio[30] < -5
    assert comparison.state is DriftState.DRIFTED
    assert comparison.fvu == pytest.approx(0.1)


def test_without_drift_fewer_than_one_window_in_twenty_raises_an_alarm() -> None:
    """q < .01 promises at most 1 % of windows; 5 % leaves room for chance in 200 windows."""
    rng = np.random.default_rng(2)
    reference = counters(rng, 20_000, RATES)
    alarms = sum(compare(reference, panes(rng, RATES)).moved.any() for _ in range(200))
    assert alarms <= 10


def test_bursty_traffic_without_drift_raises_fewer_alarms_than_plain_binomial_would() -> None:
    """Rates jump from pane to pane around the reference: the overdispersion must be seen and allowed for."""
    rng = np.random.default_rng(3)
    reference = counters(rng, 50_000, RATES)
    alarms, inflation = 0, []
    for _ in range(60):
        burst = [
            Pane(30 * number, counters(rng, 200, np.clip(RATES * rng.gamma(0.7, 1 / 0.7, WIDTH), 0, 1)))
            for number in range(10)
        ]
        comparison = compare(reference, burst)
        alarms += bool(comparison.moved.any())
        inflation.append(comparison.overdispersion)
    assert np.median(inflation) > 3
    assert alarms <= 6


def test_a_small_window_is_insufficient_data_and_judges_nothing() -> None:
    rng = np.random.default_rng(4)
    comparison = compare(counters(rng, 20_000, RATES), panes(rng, RATES * 0, count=2, rows=50))
    assert comparison.state is DriftState.INSUFFICIENT_DATA
    assert not comparison.judged.any()
    assert not comparison.moved.any()
    assert np.isnan(comparison.q).all()


def test_an_empty_window_is_insufficient_data() -> None:
    comparison = compare(counters(np.random.default_rng(5), 1_000, RATES), [])
    assert comparison.state is DriftState.INSUFFICIENT_DATA
    assert comparison.rows == 0


def test_rare_concepts_are_not_judged() -> None:
    rng = np.random.default_rng(6)
    rates = RATES.copy()
    rates[0] = 0.0005
    comparison = compare(counters(rng, 20_000, rates), panes(rng, rates))
    assert not comparison.judged[0]
    assert comparison.judged[10]


def test_another_width_is_refused() -> None:
    with pytest.raises(FailedPreconditionError, match="versions differ"):
        compare(ConceptCounters(4), [Pane(0, ConceptCounters(5))])


def test_parts_of_the_divergence_add_up_and_end_at_one_bit() -> None:
    p, q = np.array([1.0, 2.0, 3.0, 0.0]), np.array([3.0, 0.0, 1.0, 1.0])
    middle = (p / p.sum() + q / q.sum()) / 2

    def kl(one: NDArray[np.float64]) -> float:
        share = one / one.sum()
        return float(sum(s * np.log2(s / m) for s, m in zip(share, middle, strict=True) if s > 0))

    terms = js_terms(p, q)
    assert (terms >= 0).all()
    assert terms.sum() == pytest.approx((kl(p) + kl(q)) / 2)
    assert js_terms(np.array([1.0, 0.0]), np.array([0.0, 5.0])).sum() == pytest.approx(1.0)
    assert js_terms(p, p).sum() == 0.0


def test_adjusted_p_values_equal_the_definition() -> None:
    p = np.array([0.04, np.nan, 0.001, 0.03, 0.5])
    q = benjamini_hochberg(p)
    assert np.isnan(q[1])
    known = np.sort(p[np.isfinite(p)])
    for at, value in enumerate(p):
        if np.isfinite(value):
            later = known[known >= value]
            wanted = min(min(1.0, one * len(known) / (np.searchsorted(known, one) + 1)) for one in later)
            assert q[at] == pytest.approx(wanted)


def test_the_record_lists_what_moved_first_counts_what_it_cuts_and_is_json() -> None:
    rng = np.random.default_rng(7)
    width = 200
    rates = np.full(width, 0.05)
    shifted = rates * np.where(np.arange(width) < 90, 6.0, 1.0)
    comparison = compare(counters(rng, 20_000, rates), panes(rng, shifted))
    names = {latent: (f"c-{latent}", f"label {latent}") for latent in range(width)}
    record = build_record(
        comparison, names, model="m", sae_version="a", dictionary_version="d", compared_at=2.0, window_start=1.0
    )
    assert len(record.concepts) == MAX_LISTED
    assert all(shift.moved for shift in record.concepts)
    assert record.moved == 90
    assert record.capped == 90 - MAX_LISTED
    json.dumps([shift.__dict__ for shift in record.concepts], allow_nan=False)
