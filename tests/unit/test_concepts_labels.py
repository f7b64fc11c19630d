"""Labels are words people use, predicates are exact."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from recsae.concepts.labels import label_of, output_label_of, predicate_of, shared_facets
from recsae.concepts.records import FacetLift, ItemScore, LiteralRecord, RuleRecord
from recsae.concepts.summary import difference
from recsae.datasets.facets import FacetTable

_TITLES = {"1": "Star Wars (1977)", "2": "Alien (1979)"}


def rule(*literals: tuple[str, str, str, float]) -> RuleRecord:
    return RuleRecord(tuple(LiteralRecord(*each) for each in literals))


@pytest.mark.parametrize(
    ("described", "label", "predicate"),
    [
        (
            rule(("", "recent", "genre=Horror", 0.4), ("and", "recent", "decade=1980s", 0.25)),
            "Recent: Horror, 1980s",
            "recent[genre=Horror] >= 0.4 and recent[decade=1980s] >= 0.25",
        ),
        (
            rule(
                ("", "recent", "genre=Horror", 0.4), ("or", "last", "genre=Thriller", 1), ("and not", "length", "", 30)
            ),
            "Recent: Horror or last Thriller, not 30 items or more",
            "(recent[genre=Horror] >= 0.4 or last[genre=Thriller]) and not length >= 30",
        ),
        (rule(("", "recent", "genre=War", 0.7)), "Mostly: War", "recent[genre=War] >= 0.7"),
        (rule(("", "last", "title=star", 1)), 'Last: "star" in the title', "last[title=star]"),
        (rule(("", "length", "", 20)), "20 items or more", "length >= 20"),
        (
            rule(("", "usual", "decade=1980s ∩ genre=Horror", 0.3), ("and", "before", "genre=War", 1)),
            "Often: 1980s Horror, last but one War",
            "usual[decade=1980s ∩ genre=Horror] >= 0.3 and before[genre=War]",
        ),
        (
            rule(("", "usual", "genre=War", 0.1), ("and not", "recent", "like=Alien; Aliens", 0.25)),
            "At times: War, not recent like Alien; Aliens",
            "usual[genre=War] >= 0.1 and not recent[like=Alien; Aliens] >= 0.25",
        ),
        (
            RuleRecord(item_ids=("1", "2"), window=2),
            "Any of: Star Wars (1977), Alien (1979)",
            "one of {1, 2} among the newest 2",
        ),
        (RuleRecord(item_ids=("2",), window=1), "Just seen: Alien (1979)", "one of {2} among the newest 1"),
        (RuleRecord(), "Undescribed", ""),
    ],
)
def test_rules_read_as_people_would_say_them(described: RuleRecord, label: str, predicate: str) -> None:
    assert label_of(described, _TITLES) == label
    assert predicate_of(described) == predicate


def test_a_set_is_named_after_what_most_of_its_items_share() -> None:
    matrix = sparse.csr_matrix(np.array([[0, 0, 0], [1, 1, 1], [1, 1, 0], [1, 0, 1], [1, 0, 0]], np.float32))
    facets = FacetTable(
        ("genre=Drama", "genre=Horror", "popularity=band 4 of 4"), ("genre", "genre", "popularity"), matrix
    )
    assert shared_facets([1, 2, 3], facets) == "Horror, Drama"
    assert shared_facets([1, 3, 4], facets) == "Drama"
    assert shared_facets([1], facets) == ""
    described = RuleRecord(item_ids=("1", "2"), window=2)
    assert label_of(described, _TITLES, "Horror") == "Horror, any of: Star Wars (1977), Alien (1979)"


def test_an_item_without_a_title_is_named_by_its_id() -> None:
    assert label_of(RuleRecord(item_ids=("7", "1"), window=1), _TITLES | {"7": ""}) == "Any of: 7, Star Wars (1977)"


def test_output_labels_name_facets_before_titles() -> None:
    promoted = [ItemScore("1", "Star Wars (1977)", 1.0), ItemScore("2", "", 0.5)]
    assert output_label_of([FacetLift("genre=Sci-Fi", 2.0, 1.0)], promoted) == "Sci-Fi"
    assert output_label_of([], promoted) == "Star Wars (1977), 2"
    assert output_label_of([], []) == ""


def test_the_difference_of_two_shares_has_newcombe_s_interval() -> None:
    found = difference(56, 70, 48, 80)  # Newcombe (1998), method 10: .0524 to .3339
    assert found["difference"] == pytest.approx(0.2)
    assert found["low"] == pytest.approx(0.0524, abs=1e-4)
    assert found["high"] == pytest.approx(0.3339, abs=1e-4)
