"""The describer: greedy counts equal brute force, planted rules are found, noise is not described."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.describing import MIN_GAIN, MIN_POSITIVES, fit_rules
from recsae.concepts.literals import LENGTH, RECENT, Literal, LiteralBank
from recsae.concepts.rules import FacetRules, Joined, compile_rules


def make_bank(rng: np.random.Generator, literals: int, rows: int, share: float = 0.3) -> LiteralBank:
    names = tuple(Literal(RECENT, f"facet={number}", 0.4) for number in range(literals))
    return LiteralBank(names, (rng.random((literals, rows)) < share).astype(np.uint8))


def f1_of(called: NDArray[np.bool_], strong: NDArray[np.bool_], weak: NDArray[np.bool_]) -> float:
    """The oracle: F1 with weak rows left out."""
    called = called & ~weak
    tp = (called & strong).sum()
    return float(2 * tp / max(1, strong.sum() + called.sum()))


def joined(left: NDArray[np.bool_], right: NDArray[np.bool_], how: Joined) -> NDArray[np.bool_]:
    return {Joined.AND: left & right, Joined.AND_NOT: left & ~right, Joined.OR: left | right}[how]


def brute_force(truth: NDArray[np.bool_], strong: NDArray[np.bool_], weak: NDArray[np.bool_]) -> float:
    """Best F1 of the same search by loops: the two best first literals, each grown greedily."""
    singles = [f1_of(each, strong, weak) for each in truth]
    best = 0.0
    for start in np.argsort(-np.array(singles), kind="stable")[:2]:
        called, f1 = truth[start], singles[start]
        for _ in range(2):
            options = [
                (f1_of(joined(called, each, how), strong, weak), how, at)
                for how in Joined
                for at, each in enumerate(truth)
            ]
            score, how, at = max(options, key=lambda option: (option[0], -option[1], -option[2]))
            if score < f1 + MIN_GAIN:
                break
            called, f1 = joined(called, truth[at], how), score
        best = max(best, f1)
    return best


def test_greedy_search_equals_brute_force() -> None:
    rng = np.random.default_rng(0)
    bank = make_bank(rng, literals=9, rows=300)
    truth = bank.truth.astype(bool)
    strong = rng.random((12, 300)) < 0.08 + 0.5 * truth[rng.integers(0, 9, 12)] * truth[rng.integers(0, 9, 12)]
    weak = (rng.random((12, 300)) < 0.15) & ~strong
    fitted = fit_rules(bank, sparse.csr_matrix(strong.astype(np.float32)), sparse.csr_matrix(weak.astype(np.float32)))
    called = fitted.rules.truth(bank.truth, np.arange(12)).astype(bool)
    assert strong.sum(axis=1).min() >= MIN_POSITIVES
    for latent in range(12):
        assert fitted.f1[latent] == pytest.approx(f1_of(called[latent], strong[latent], weak[latent]), abs=1e-6)
        assert fitted.f1[latent] == pytest.approx(brute_force(truth, strong[latent], weak[latent]), abs=1e-6)


@pytest.mark.parametrize("how", list(Joined))
def test_a_planted_rule_of_two_literals_is_found(how: Joined) -> None:
    bank = make_bank(np.random.default_rng(1), literals=40, rows=4000)
    truth = bank.truth.astype(bool)
    planted = joined(truth[3], truth[17], how)
    strong = sparse.csr_matrix(planted[None].astype(np.float32))
    fitted = fit_rules(bank, strong, sparse.csr_matrix(strong.shape, dtype=np.float32))
    assert fitted.f1[0] == 1.0
    assert set(fitted.rules.literal[0].tolist()) == {3, 17, -1}
    assert fitted.rules.joined[0, 1] == how


def test_a_planted_conjunction_of_three_is_found() -> None:
    bank = make_bank(np.random.default_rng(2), literals=40, rows=6000)
    truth = bank.truth.astype(bool)
    planted = truth[3] & truth[17] & ~truth[8]
    fitted = fit_rules(bank, sparse.csr_matrix(planted[None].astype(np.float32)), sparse.csr_matrix((1, 6000)))
    assert fitted.f1[0] == 1.0
    assert set(fitted.rules.literal[0].tolist()) == {3, 17, 8}


def test_weak_firings_count_neither_for_nor_against_a_rule() -> None:
    bank = make_bank(np.random.default_rng(3), literals=5, rows=1000)
    truth = bank.truth.astype(bool)
    weak = truth[2] & (np.arange(1000) % 2 == 0)
    strong = truth[2] & ~weak
    matrices = [sparse.csr_matrix(mask[None].astype(np.float32)) for mask in (strong, weak)]
    assert fit_rules(bank, *matrices).f1[0] == 1.0


def test_a_latent_with_too_few_positives_gets_no_rule() -> None:
    bank = make_bank(np.random.default_rng(4), literals=5, rows=1000)
    strong = np.zeros((1, 1000), np.float32)
    strong[0, : MIN_POSITIVES - 1] = 1
    fitted = fit_rules(bank, sparse.csr_matrix(strong), sparse.csr_matrix((1, 1000)))
    assert fitted.rules.literal.tolist() == [[-1, -1, -1]]
    assert not fitted.rules.truth(bank.truth, np.array([0])).any()


def test_noise_gains_little_over_the_label_that_always_holds() -> None:
    rng = np.random.default_rng(5)
    bank = make_bank(rng, literals=200, rows=5000, share=0.1)
    strong = sparse.csr_matrix((rng.random((50, 5000)) < 0.05).astype(np.float32))
    fitted = fit_rules(bank, strong, sparse.csr_matrix(strong.shape))
    always = 2 * 0.05 / 1.05
    assert fitted.f1.max() < 2.5 * always


def test_lengths_are_never_an_alternative() -> None:
    rng = np.random.default_rng(6)
    bank = make_bank(rng, literals=2, rows=2000)
    bank = LiteralBank((bank.literals[0], Literal(LENGTH, "", 10.0)), bank.truth)
    either = (bank.truth[0] | bank.truth[1])[None].astype(np.float32)
    fitted = fit_rules(bank, sparse.csr_matrix(either), sparse.csr_matrix((1, 2000)))
    assert Joined.OR not in fitted.rules.joined[0][fitted.rules.literal[0] >= 0]


def test_rules_survive_their_stored_form() -> None:
    rng = np.random.default_rng(7)
    bank = make_bank(rng, literals=20, rows=10)
    rules = FacetRules(
        np.array([[3, 4, 5], [7, -1, -1], [-1, -1, -1], [3, 3, -1]], np.int32),
        np.array([[0, 1, 2], [0, 0, 0], [0, 0, 0], [0, 2, 0]], np.int8),
    )
    compiled = compile_rules(rules.records(bank.literals))
    assert len(compiled.literals) == 4
    index = [bank.literals.index(literal) for literal in compiled.literals]
    latents = np.arange(4)
    np.testing.assert_array_equal(compiled.rules.truth(bank.truth[index], latents), rules.truth(bank.truth, latents))
