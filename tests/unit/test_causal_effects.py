"""Safe ranges, what doses spend, intervals that hold at once, and their JSON."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsae.concepts.causal.doses import ADDED, GRID, deltas
from recsae.concepts.causal.intervals import Drawn, log_odds_change, ratio, simultaneous_upper, totals, user_draws
from recsae.concepts.causal.nulls import Curves, alike_latents, percentile
from recsae.concepts.effects import CausalRecord, DoseEffect, SafeRange, Spent, range_of
from recsae.concepts.estimates import UNKNOWN, Estimate
from recsae.concepts.records import ConceptRecord, concept_from_json

NOTHING = Estimate(1.0, 1.0, 1.0)


def effect(operation: str, dose: float, loss: float, off_target: float = 0.0) -> DoseEffect:
    return DoseEffect(operation, dose, UNKNOWN, NOTHING, UNKNOWN, UNKNOWN, UNKNOWN, 0.5, loss, off_target)


ADDING = tuple(
    effect("add", dose, loss, off)
    for dose, loss, off in (
        (-0.5, 0.01, 0.2), (-0.2, 0.02, 0.09), (-0.1, 0.0, 0.02), (0.1, 0.01, 0.03), (0.2, 0.04, 0.05),
        (0.5, 0.06, 0.0), (1.0, 0.01, 0.0),
    )
)  # fmt: skip


def test_a_safe_range_ends_before_the_first_dose_that_breaks_a_limit_on_either_side() -> None:
    """The dose of 1 keeps both limits, and is still no part of it: .5 lies between and does not."""
    assert range_of("add", ADDING) == SafeRange("add", -0.2, 0.2, "ndcg", "off_target")


def test_a_safe_range_ends_where_the_grid_does() -> None:
    assert range_of("add", ADDING[2:5]) == SafeRange("add", -0.1, 0.2, "measured", "measured")


def test_a_range_without_a_safe_dose_is_empty_and_says_why() -> None:
    assert range_of("add", (effect("add", 0.1, 0.2), effect("add", -0.1, 0.0, 0.2))) == SafeRange(
        "add", 0.0, 0.0, "ndcg", "off_target", empty=True
    )


@pytest.mark.parametrize(
    ("operation", "doses", "expected"),
    [
        ("ablate", ((0.0, 0.01),), SafeRange("ablate", 0.0, 0.0, "measured")),
        ("ablate", ((0.0, 0.09),), SafeRange("ablate", 0.0, 0.0, "ndcg", "ndcg", empty=True)),
        ("scale", ((0.0, 0.09), (0.5, 0.01), (4.0, 0.02)), SafeRange("scale", 0.5, 4.0, "measured", "ndcg")),
        ("set", ((0.0, 0.01), (0.5, 0.02), (1.0, 0.08)), SafeRange("set", 0.0, 0.5, "ndcg")),
        ("cap", ((0.0, 0.08), (0.5, 0.02), (10.0, 0.0)), SafeRange("cap", 0.5, 10.0, "measured", "ndcg")),
    ],
)  # fmt: skip
def test_ranges_of_operations_begin_where_they_change_nothing(
    operation: str, doses: tuple[tuple[float, float], ...], expected: SafeRange
) -> None:
    assert range_of(operation, tuple(effect(operation, dose, loss) for dose, loss in doses)) == expected


def test_what_a_dose_spends_lies_on_the_line_between_the_doses_beside_it() -> None:
    record = CausalRecord("", 2_000, ADDING, (), False, 0.0)
    assert record.spent("add", 0.0) == Spent(0.0, 0.0)
    assert record.spent("add", 0.05).loss == pytest.approx(0.005)
    assert record.spent("add", 0.15).off_target == pytest.approx(0.04)
    assert record.spent("scale", 2.0) == Spent(1.0, 1.0), "nothing is known of an operation without doses"
    assert record.spent("add", 9.0).loss == pytest.approx(0.01), "the last dose's"


def test_a_record_with_its_doses_survives_json() -> None:
    doses = (replace(ADDING[0], facet_log_odds=Estimate(0.5, 0.25, 0.75), survives=0.5, facet_share=0.125),)
    causal = CausalRecord("genre=Horror", 2_000, doses, (range_of("add", doses),), True, 0.99, 0.9, 0.1, "f" * 16)
    concept = ConceptRecord("c-1", 0, causal=causal)
    assert concept_from_json(concept.as_json()) == concept
    assert concept_from_json(ConceptRecord("c-1", 0).as_json()).causal is None


def test_every_operation_is_tried_and_changes_what_a_policy_would_change() -> None:
    from recsae.steering.delta import target_values
    from recsae.steering.policies import OperationKind

    z = np.array([[0.0, 0.3, 2.5]], np.float32)
    p95 = np.array([1.5], np.float32)
    changed = deltas(z, p95)
    assert {dose.operation for dose in GRID} == {kind.value for kind in OperationKind}
    for at, dose in enumerate(GRID):
        kind = OperationKind(dose.operation)
        value = dose.value if kind is OperationKind.SCALE else dose.value * 1.5
        expected = target_values(kind, value, z[0].astype(np.float64)) - z[0]
        np.testing.assert_allclose(changed[0, at], expected, atol=1e-6, err_msg=str(dose))
    assert 0.0 not in ADDED


def test_simultaneous_bounds_hold_for_all_doses_at_once_as_often_as_they_say() -> None:
    """200 panels of 300 users, 8 doses whose true effects are 0. Binomial 95 % limits of 95 % of 200: 183 to 196.

    Pointwise bounds, beside them, fail more often than one panel in twelve.
    """
    random = np.random.default_rng(5)
    weights = user_draws(300, seed=1, draws=300)
    held, pointwise = 0, 0
    for _ in range(200):
        values = random.normal(size=(300, 8)).astype(np.float32)
        drawn = totals(weights, values)
        (upper,) = simultaneous_upper([drawn])
        held += bool((upper >= 0).all())
        pointwise += bool((drawn.interval()[1] >= 0).all())
    assert held >= 183
    assert pointwise < 183


def test_a_figure_no_draw_changes_widens_no_bound_and_is_its_own() -> None:
    random = np.random.default_rng(0)
    moving = Drawn(np.zeros(1), random.normal(size=(500, 1)))
    still = Drawn(np.full(1, 0.03), np.full((500, 1), 0.03))
    alone = simultaneous_upper([moving])[0]
    together, fixed = simultaneous_upper([moving, still])
    assert together == pytest.approx(alone)
    assert fixed == pytest.approx(0.03)


def test_ratios_and_log_odds_are_paired_with_the_base() -> None:
    """All users gain alike, so the ratio is certain although each total is not."""
    base = np.random.default_rng(0).random((400, 1)).astype(np.float32)
    weights = user_draws(400)
    kept = ratio(totals(weights, 0.5 * base), totals(weights, base))
    assert kept.value == pytest.approx(0.5)
    assert kept.error == pytest.approx(0.0, abs=1e-6)
    same = log_odds_change(totals(weights, base), totals(weights, base), 4_000.0)
    assert same.error == pytest.approx(0.0, abs=1e-9)


def test_nulls_are_read_at_an_equal_size_of_change_and_only_where_measured() -> None:
    curves = Curves(
        np.array([[0.0, 1.0, 2.0], [0.0, 0.1, 0.2]]),
        np.array([[[0.0], [1.0], [4.0]], [[0.0], [1.0], [4.0]]], np.float32),
    )
    gains = curves.gain(np.array([0, 1]), 0, 1.5)
    assert gains[0] == pytest.approx(2.5)
    assert np.isnan(gains[1])
    assert percentile(2.5, np.concatenate([np.arange(40) / 10, [np.nan]])) == pytest.approx(25 / 40)
    assert percentile(9.0, np.arange(5.0)) == 0.0, "too few nulls say nothing"


def test_nulls_are_of_like_density_and_never_hold_the_latent_itself() -> None:
    density = np.random.default_rng(0).permutation(1_000).astype(np.float64)
    alike = alike_latents(density)
    assert {len(one) for one in alike} == {60}
    for latent in (0, 17, 999):
        assert latent not in alike[latent]
        assert np.ptp(density[alike[latent]]) < 100
        assert abs(density[latent] - density[alike[latent]].mean()) < 100
