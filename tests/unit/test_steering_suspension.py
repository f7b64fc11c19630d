"""Policies over a refresh: in force while their concepts mean what they meant, suspended with the reason otherwise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from recsae.pipeline.triples import Triple
from recsae.steering.plans import Basis, compile_plan, suspension
from recsae.steering.policies import Operation, OperationKind, Policy, PolicyDraft, Window, new_policy

NOW = 1_790_000_000.0
OLD, NEW = "1" * 16, "2" * 16
CONCEPTS = {f"c-{number}": number for number in range(6)}


def basis(version: str, doubts: Mapping[tuple[str, str], str], model_version: str = "m1") -> Basis:
    """`doubts`: why, by concept and the dictionary it was named for."""
    return Basis(
        model="sasrec",
        triple=Triple(model_version, "s" * 16, version),
        hook="sequence",
        latents=CONCEPTS,
        p95=np.ones(6, np.float32),
        w_dec=np.eye(6, dtype=np.float32),
        doubt=lambda concept_id, made_for: doubts.get((concept_id, made_for), ""),
    )


def policy(*concepts: str, made_for: str) -> Policy:
    operations = tuple(Operation(concept, OperationKind.ADD, 1.0) for concept in concepts)
    draft = PolicyDraft("test", "sasrec", operations, window=Window(end=NOW + 60))
    return new_policy(draft, actor="me", now=NOW, dictionary_version=made_for)


def in_plan(policies: list[Policy], compiled_for: Basis, newest: Basis | None = None) -> set[str]:
    plan = compile_plan(policies, compiled_for, revision=1, now=NOW, newest=newest)
    return {one.ref.policy_id for one in plan.policies}


def test_a_policy_is_suspended_by_any_concept_in_doubt_since_it_was_made_and_only_then() -> None:
    refreshed = basis(NEW, {("c-1", OLD): "drifted", ("c-2", OLD): "was split into c-8, c-9"})
    kept, touched, again = policy("c-0", made_for=OLD), policy("c-0", "c-1", made_for=OLD), policy("c-1", made_for=NEW)
    assert in_plan([kept, touched, again], refreshed) == {kept.id, again.id}
    assert suspension(touched, refreshed).startswith(f"c-1 drifted (promoted: {NEW}); look at it")
    both = suspension(policy("c-1", "c-2", made_for=OLD), refreshed)
    assert "c-1 drifted; c-2 was split into c-8, c-9" in both


def test_of_many_concepts_in_doubt_the_reason_names_a_few_and_counts_the_others() -> None:
    refreshed = basis(NEW, {(concept, OLD): "was lost" for concept in CONCEPTS})
    words = suspension(policy(*CONCEPTS, made_for=OLD), refreshed)
    assert words.startswith("c-0 was lost; c-1 was lost; c-2 was lost and 3 more")


def test_a_policy_for_the_newest_dictionary_holds_for_an_older_version_still_served_where_nothing_is_in_doubt() -> None:
    """While a retrained model is rolled out, both its versions are served."""
    strange = {(concept, NEW): "was named for another dictionary" for concept in CONCEPTS}
    older = basis(OLD, strange)
    newest = basis(NEW, {("c-1", OLD): "drifted"}, model_version="m2")
    same, moved = policy("c-0", made_for=NEW), policy("c-1", made_for=NEW)
    assert in_plan([same, moved], newest, newest) == {same.id, moved.id}
    assert in_plan([same, moved], older, newest) == {same.id}
    assert in_plan([same, moved], older) == set()


@pytest.mark.parametrize("made_for", ["", OLD, NEW])
def test_without_a_refresh_nothing_is_in_doubt(made_for: str) -> None:
    assert suspension(policy("c-0", made_for=made_for), basis(NEW, {})) == ""
    assert "no live concept" in suspension(policy("c-gone", made_for=made_for), basis(NEW, {}))
