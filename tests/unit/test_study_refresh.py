"""What the refresh study counts: shares of the concepts verified before, by count and by mass, with their intervals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks.study.refresh import pooled, survival

from recsae.concepts.origins import DRIFTED, LOST, SPLIT, STABLE, Fate, Lineage


def fate(name: str, status: str, kept: bool | None, mass: float) -> Fate:
    to_ids = {STABLE: (name,), DRIFTED: (name,), SPLIT: ("c-a", "c-b"), LOST: ()}[status]
    return Fate(name, name, status, to_ids, mass=mass, verified=kept is not None, kept=kept)


def test_only_concepts_verified_before_count_and_only_their_own_id_is_a_match() -> None:
    fates = (
        fate("c-1", STABLE, kept=True, mass=0.3),
        fate("c-2", STABLE, kept=False, mass=0.1),
        fate("c-3", DRIFTED, kept=True, mass=0.1),
        fate("c-4", SPLIT, kept=False, mass=0.1),
        fate("c-5", LOST, kept=None, mass=0.4),
    )
    found = survival(Lineage(("0" * 16,), "s", "m", 100, 0.9, 0.01, fates))
    assert (found["kept"]["count"], found["kept"]["of"], found["kept"]["value"]) == (2, 4, 0.5)
    assert 0 < found["kept"]["low"] < 0.5 < found["kept"]["high"] < 1
    assert (found["matched"]["count"], found["matched"]["of"]) == (3, 4)
    assert (found["kept_of_judged"]["count"], found["kept_of_judged"]["of"]) == (2, 4)
    assert found["kept_share_of_mass"] == pytest.approx(0.4 / 0.6)
    assert found["verified_became"] == {STABLE: 2, DRIFTED: 1, SPLIT: 1, "merged": 0, LOST: 0, "silent": 0}
    assert found["live_became"][LOST] == 1


def test_what_is_found_with_too_few_cases_to_judge_it_is_not_kept_and_counted_apart() -> None:
    few = replace(fate("c-2", STABLE, kept=False, mass=0.5), too_few_cases=True)
    fates = (fate("c-1", STABLE, kept=True, mass=0.5), few)
    found = survival(Lineage(("0" * 16,), "s", "m", 100, None, 0.0, fates))
    assert (found["kept"]["value"], found["kept_of_judged"]["value"]) == (0.5, 1.0)


def test_where_nothing_was_verified_nothing_is_known() -> None:
    found = survival(Lineage(("0" * 16,), "s", "m", 100, None, 0.0, (fate("c-5", LOST, kept=None, mass=1.0),)))
    assert (found["kept"]["of"], found["kept"]["low"], found["kept"]["high"]) == (0, 0.0, 1.0)


def test_seeds_are_counted_together() -> None:
    one = survival(Lineage(("0" * 16,), "s", "m", 100, 0.8, 0.0, (fate("c-1", STABLE, kept=True, mass=1.0),)))
    other = survival(Lineage(("0" * 16,), "s", "m", 100, None, 0.02, (fate("c-1", LOST, kept=False, mass=1.0),) * 3))
    together = pooled([one, other])
    assert (together["kept"]["count"], together["kept"]["of"], together["kept"]["value"]) == (1, 4, 0.25)
    assert (together["verified_became"][STABLE], together["verified_became"][LOST]) == (1, 3)
    assert (together["explained"], together["by_chance"], together["fvu"]) == (0.8, 0.01, None)
    assert together["seeds"] == [one, other]
