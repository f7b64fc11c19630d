"""Planted concepts are matched one to one, and a label is right only where it asks for what was planted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from recsae.concepts.firings import Firings
from recsae.concepts.records import ConceptRecord, ConceptStatus, LiteralRecord, RuleRecord
from recsae.concepts.recovery import asks_for, match_planted, rightly_labelled


def rule(*literals: tuple[str, str]) -> RuleRecord:
    return RuleRecord(literals=tuple(LiteralRecord(joined, "recent", facet, 0.4) for joined, facet in literals))


def test_a_permuted_dictionary_is_matched_to_what_it_holds() -> None:
    rng = np.random.default_rng(0)
    strengths = np.maximum(rng.normal(size=(500, 6)) - 0.5, 0).astype(np.float32)
    order = rng.permutation(6)
    codes = np.concatenate([2 * strengths[:, order], rng.random((500, 3))], axis=1).astype(np.float32)
    found = match_planted(strengths, Firings(sparse.csr_matrix(codes.T)))
    assert order[found.latent].tolist() == list(range(6))
    assert found.mcc == pytest.approx(1)


def test_unrelated_and_silent_latents_match_at_chance_and_missing_ones_at_zero() -> None:
    rng = np.random.default_rng(1)
    strengths = rng.random((2000, 3)).astype(np.float32)
    codes = np.stack([rng.random(2000), np.zeros(2000)]).astype(np.float32)
    found = match_planted(strengths, Firings(sparse.csr_matrix(codes)))
    assert sorted(found.latent.tolist()) == [-1, 0, 1]
    assert found.mcc < 0.1


@pytest.mark.parametrize(
    ("literals", "asks"),
    [
        ([("", "a")], True),
        ([("", "a"), ("and not", "b")], True),
        ([("", "a"), ("and", "b")], True),
        ([("", "b"), ("or", "a"), ("and", "a")], True),
        ([("", "a"), ("or", "b")], False),
        ([("", "b"), ("and not", "a")], False),
        ([("", "b")], False),
        ([("", "a ∩ b")], True),
        ([("", "b ∩ c"), ("or", "a ∩ b")], False),
        ([], False),
    ],
)
def test_a_rule_asks_for_a_facet_when_it_cannot_hold_without(literals: list[tuple[str, str]], asks: bool) -> None:
    assert asks_for(rule(*literals), "a") is asks


def test_only_verified_labels_of_latents_that_follow_the_concept_are_right() -> None:
    rng = np.random.default_rng(2)
    strengths = rng.random((500, 3)).astype(np.float32)
    found = match_planted(strengths, Firings(sparse.csr_matrix(strengths.T)))
    good = ConceptRecord("c0", 0, status=ConceptStatus.VERIFIED, rule=rule(("", "a")))
    unverified = ConceptRecord("c1", 1, rule=rule(("", "b")))
    wrong = ConceptRecord("c2", 2, status=ConceptStatus.VERIFIED, rule=rule(("", "a")))
    assert rightly_labelled(found, (good, unverified, wrong), (("a",), ("b",), ("c",))).tolist() == [True, False, False]
