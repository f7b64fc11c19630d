"""The describer: its counts equal those of loops, planted rules are found, noise is not described."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.cases import Cases
from recsae.concepts.counting import CaseBlock, count, count_cells
from recsae.concepts.describing import MIN_POSITIVES, FittedRules, fit_rules
from recsae.concepts.formulas import formulas_of
from recsae.concepts.literals import LENGTH, RECENT, Literal, LiteralBank, PackedTruth
from recsae.concepts.objective import ENOUGH, margin, natural_f1
from recsae.concepts.rules import FacetRules, Joined, compile_rules, join

Mask = NDArray[np.bool_]


def make_bank(rng: np.random.Generator, literals: int, rows: int, share: float = 0.3) -> tuple[LiteralBank, Mask]:
    truth = rng.random((literals, rows)) < share
    names = tuple(Literal(RECENT, f"facet={number}", 0.4) for number in range(literals))
    return LiteralBank(names, PackedTruth(np.packbits(truth.T, axis=1), literals)), truth


def make_cases(strong: Mask, weak: Mask | None = None, strata: int = 3) -> Cases:
    """Cases of latents [w, n]; every latent's neighbours are the two next ones."""
    width, n = strong.shape
    weak = np.zeros_like(strong) if weak is None else weak
    near = (np.arange(width)[:, None] + np.arange(1, 3)) % width if width > 2 else np.full((width, 2), -1)
    return Cases(
        strong=sparse.csr_matrix(strong.astype(np.float32)),
        weak=sparse.csr_matrix(weak.astype(np.float32)),
        user=np.arange(n),
        group=np.zeros(n, np.int64),
        unseen=np.zeros(n, bool),
        stratum=(np.arange(n) % strata).astype(np.int32),
        n_strata=strata,
        groups=1,
        neighbours=near.astype(np.int32),
    )


def fit(bank: LiteralBank, cases: Cases) -> FittedRules:
    return fit_rules(bank, cases, cases.strong)


def called_by(fitted: FittedRules, truth: Mask, latent: int) -> Mask:
    called: Mask = fitted.rules.truth(truth.astype(np.uint8), np.array([latent]))[0].astype(bool)
    return called


def counted_by_hand(cases: Cases, latent: int, called: Mask) -> NDArray[np.float64]:
    """The six counts of one mask of rows, by loops over rows and strata."""
    strong = cases.strong[[latent]].toarray()[0] > 0
    fired = cases.fired(np.array([latent])).toarray()[0] > 0
    hard = cases.hard(np.array([latent])).toarray()[0] > 0
    weight = np.zeros(len(called))
    for stratum in range(cases.n_strata):
        here = cases.stratum == stratum
        silent = (here & ~fired).sum()
        weight[here] = (here & strong).sum() / silent if silent else 0.0
    return np.array(
        [
            (called & strong).sum(),
            (called & fired).sum(),
            (called & hard).sum(),
            weight[called & fired].sum(),
            called.sum(),
            weight[called].sum(),
        ]
    )


def test_counts_of_a_rule_with_every_literal_equal_those_of_loops() -> None:
    rng = np.random.default_rng(0)
    bank, truth = make_bank(rng, literals=7, rows=301)
    strong = rng.random((5, 301)) < 0.15
    cases = make_cases(strong, (rng.random((5, 301)) < 0.1) & ~strong)
    values = sparse.csr_matrix(strong * rng.random((5, 301)).astype(np.float32))
    block = CaseBlock.of(cases, values, np.arange(5))
    cell = truth[rng.integers(0, 7, 5)].astype(np.uint8)
    holds = np.array([[False, True]] * 4 + [[True, False]])
    counted = count(block, bank, cell, holds)
    own, sums = count_cells(block, cell, 2)
    for latent in range(5):
        rule = np.where(cell[latent] == 1, holds[latent, 1], holds[latent, 0]).astype(bool)
        for literal in range(7):
            expected = counted_by_hand(cases, latent, rule & truth[literal])
            np.testing.assert_allclose(counted.table[:, latent, literal], expected, rtol=1e-5)
            for at in range(2):
                inside = (cell[latent] == at) & truth[literal]
                assert counted.rows[at, latent, literal] == inside.sum()
                expected_sum = values[[latent]].toarray()[0][inside].sum()
                assert counted.value[at, latent, literal] == pytest.approx(expected_sum, rel=1e-5)
        for at in range(2):
            inside = cell[latent] == at
            np.testing.assert_allclose(own[:, latent, at], counted_by_hand(cases, latent, inside), rtol=1e-5)
            assert sums[latent, at] == pytest.approx(values[[latent]].toarray()[0][inside].sum(), rel=1e-5)


def test_scores_of_a_fitted_rule_are_those_of_its_counts() -> None:
    rng = np.random.default_rng(1)
    bank, truth = make_bank(rng, literals=9, rows=600)
    strong = rng.random((6, 600)) < 0.08 + 0.6 * truth[rng.integers(0, 9, 6)] * truth[rng.integers(0, 9, 6)]
    cases = make_cases(strong, (rng.random((6, 600)) < 0.15) & ~strong)
    fitted, block = fit(bank, cases), CaseBlock.of(cases, cases.strong, np.arange(6))
    table = np.stack([counted_by_hand(cases, latent, called_by(fitted, truth, latent)) for latent in range(6)], axis=1)
    np.testing.assert_allclose(fitted.f1, natural_f1(table.astype(np.float32), block.totals), atol=1e-5)
    np.testing.assert_allclose(fitted.margin, margin(table.astype(np.float32), block.totals), atol=1e-5)


@pytest.mark.parametrize("how", list(Joined))
def test_a_planted_rule_of_two_literals_is_found(how: Joined) -> None:
    bank, truth = make_bank(np.random.default_rng(1), literals=40, rows=4000)
    planted = join(truth[3].astype(np.uint8), truth[17].astype(np.uint8), how).astype(bool)
    fitted = fit(bank, make_cases(planted[None]))
    assert fitted.f1[0] == pytest.approx(1.0)
    assert fitted.margin[0] > ENOUGH
    assert set(fitted.rules.literal[0].tolist()) == {3, 17, -1}
    np.testing.assert_array_equal(called_by(fitted, truth, 0), planted)


def test_a_planted_conjunction_of_three_is_found() -> None:
    bank, truth = make_bank(np.random.default_rng(2), literals=40, rows=6000)
    planted = truth[3] & truth[17] & ~truth[8]
    fitted = fit(bank, make_cases(planted[None]))
    assert fitted.f1[0] == pytest.approx(1.0)
    assert set(fitted.rules.literal[0].tolist()) == {3, 17, 8}


def test_levels_are_the_mean_values_on_each_pattern_of_truth() -> None:
    rng = np.random.default_rng(8)
    bank, truth = make_bank(rng, literals=5, rows=20_000)
    fires = truth[1] & truth[4]
    value = np.where(fires, 3.0, np.where(truth[1], 1.0, 0.0)).astype(np.float32)
    cases = make_cases(value[None] >= 2, (value[None] > 0) & (value[None] < 2))
    fitted = fit_rules(bank, cases, sparse.csr_matrix(value[None]))
    (record,) = fitted.rules.records(bank.literals, np.array([2.0], np.float32))
    compiled = compile_rules([record])
    asked = [bank.literals.index(literal) for literal in compiled.literals]
    pattern = compiled.rules.patterns(truth[asked].astype(np.uint8), np.array([0]))[0]
    predicted = compiled.rules.level[0][pattern]
    np.testing.assert_allclose(predicted[fires], 1.5, atol=0.01)
    np.testing.assert_allclose(predicted[truth[1] & ~fires], 0.5, atol=0.01)
    np.testing.assert_allclose(predicted[~truth[1]], 0.0, atol=0.01)


def test_weak_firings_count_neither_for_nor_against_a_rule() -> None:
    bank, truth = make_bank(np.random.default_rng(3), literals=5, rows=1000)
    weak = truth[2] & (np.arange(1000) % 2 == 0)
    assert fit(bank, make_cases((truth[2] & ~weak)[None], weak[None])).f1[0] == pytest.approx(1.0)


def test_a_latent_with_too_few_positives_gets_no_rule() -> None:
    bank, truth = make_bank(np.random.default_rng(4), literals=5, rows=1000)
    strong = np.zeros((1, 1000), bool)
    strong[0, : MIN_POSITIVES - 1] = True
    fitted = fit(bank, make_cases(strong))
    assert fitted.rules.literal.tolist() == [[-1, -1, -1]]
    assert not called_by(fitted, truth, 0).any()
    assert fitted.rules.records(bank.literals, np.ones(1, np.float32))[0].levels == ()


def test_noise_does_not_look_as_if_it_would_be_verified() -> None:
    rng = np.random.default_rng(5)
    bank, _ = make_bank(rng, literals=200, rows=5000, share=0.1)
    fitted = fit(bank, make_cases(rng.random((50, 5000)) < 0.05))
    assert fitted.margin.max() < 0.7
    assert fitted.f1.max() < 3 * 2 * 0.05 / 1.05


def test_lengths_are_never_an_alternative() -> None:
    bank, truth = make_bank(np.random.default_rng(6), literals=2, rows=2000)
    bank = LiteralBank((bank.literals[0], Literal(LENGTH, "", 10.0)), bank.truth)
    fitted = fit(bank, make_cases((truth[0] | truth[1])[None]))
    assert Joined.OR not in fitted.rules.joined[0][fitted.rules.literal[0] >= 0]


def test_every_readable_formula_is_there_once() -> None:
    for literals, count_of in ((1, 1), (2, 4), (3, 23)):
        formulas = formulas_of(literals)
        assert len(np.unique(formulas.holds, axis=0)) == len(formulas.order) == count_of
        truth = np.array([(np.arange(1 << literals) >> at) & 1 for at in range(literals)], np.uint8)
        rules = FacetRules(formulas.order.astype(np.int32), formulas.joined, np.zeros((count_of, 8), np.float32))
        np.testing.assert_array_equal(rules.truth(truth, np.arange(count_of)).astype(bool), formulas.holds)


def test_rules_survive_their_stored_form() -> None:
    bank, truth = make_bank(np.random.default_rng(7), literals=20, rows=10)
    rules = FacetRules(
        np.array([[3, 4, 5], [7, -1, -1], [-1, -1, -1], [3, 3, -1]], np.int32),
        np.array([[0, 1, 2], [0, 0, 0], [0, 0, 0], [0, 2, 0]], np.int8),
        np.arange(32, dtype=np.float32).reshape(4, 8),
    )
    compiled = compile_rules(rules.records(bank.literals, np.ones(4, np.float32)))
    assert len(compiled.literals) == 4
    index = [bank.literals.index(literal) for literal in compiled.literals]
    known, latents = truth.astype(np.uint8), np.arange(4)
    np.testing.assert_array_equal(compiled.rules.truth(known[index], latents), rules.truth(known, latents))
    np.testing.assert_array_equal(compiled.rules.patterns(known[index], latents), rules.patterns(known, latents))
    assert compiled.rules.level[0].tolist() == list(range(8))
    assert compiled.rules.level[1, :2].tolist() == [8.0, 9.0]
