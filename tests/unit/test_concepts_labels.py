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
            "Recent: Horror or last Thriller; and a history of fewer than 30 items",
            "(recent[genre=Horror] >= 0.4 or last[genre=Thriller]) and not length >= 30",
        ),
        (rule(("", "recent", "genre=War", 0.7)), "Mostly: War", "recent[genre=War] >= 0.7"),
        (rule(("", "last", "title=star", 1)), 'Last: "star" in the title', "last[title=star]"),
        (rule(("", "length", "", 20)), "A history of 20 items or more", "length >= 20"),
        (
            rule(("", "usual", "decade=1980s ∩ genre=Horror", 0.3), ("and", "before", "genre=War", 1)),
            "Often: 1980s Horror, last but one War",
            "usual[decade=1980s ∩ genre=Horror] >= 0.3 and before[genre=War]",
        ),
        (
            rule(("", "usual", "genre=War", 0.1), ("and not", "recent", "like=Alien; Aliens", 0.25)),
            "At times: War, few recent things like “Alien” / “Aliens”",
            "usual[genre=War] >= 0.1 and not recent[like=Alien; Aliens] >= 0.25",
        ),
        (
            rule(
                ("", "last", "popularity=band 2 of 4", 1),
                ("and not", "popularity", "", float(np.log1p(np.float32(229)))),
                ("or", "last", "g=A", 1),
            ),
            "Last: little-known item, newest item consumed fewer than 229 times; or last A",
            "(last[popularity=band 2 of 4] and not count of the newest item >= 229) or last[g=A]",
        ),
        (
            rule(("", "recent", "popularity=band 3 of 4", 0.4), ("and not", "usual", "g=A", 0.05)),
            "Recent: well-known items, hardly any A",
            "recent[popularity=band 3 of 4] >= 0.4 and not usual[g=A] >= 0.05",
        ),
        (
            rule(
                ("", "last", "g=B", 1),
                ("and not", "before", "g=A", 1),
                ("and not", "last", "popularity=band 1 of 4", 1),
            ),
            "Last: B, last but one not A, not rare item",
            "(last[g=B] and not before[g=A]) and not last[popularity=band 1 of 4]",
        ),
        (
            rule(("", "recent", "g=A", 0.85), ("and not", "recent", "g=B", 0.85), ("and", "last", "like=X; Y, The", 1)),
            "Nearly all: A, not nearly all B, last like “X” / “Y, The”",
            "(recent[g=A] >= 0.85 and not recent[g=B] >= 0.85) and last[like=X; Y, The]",
        ),
        (
            rule(("", "usual", "g=A", 0.3), ("and not", "usual", "g=A", 0.6), ("and not", "recent", "g=B", 0.1)),
            "Often: A, but under 60 %, no recent B",
            "(usual[g=A] >= 0.3 and not usual[g=A] >= 0.6) and not recent[g=B] >= 0.1",
        ),
        (
            rule(("", "length", "", 16), ("and not", "length", "", 64)),
            "A history of 16 items or more, fewer than 64 items",
            "length >= 16 and not length >= 64",
        ),
        (
            rule(("", "recent", "genre=Horror", 0.55), ("and", "recent", "genre=Horror", 0.1)),
            "Mostly: Horror",
            "recent[genre=Horror] >= 0.55 and recent[genre=Horror] >= 0.1",
        ),
        (
            RuleRecord(item_ids=("1", "2"), window=2),
            "Any of: Star Wars (1977); Alien (1979)",
            "one of {1, 2} among the newest 2",
        ),
        (RuleRecord(item_ids=("2",), window=1), "Just seen: Alien (1979)", "one of {2} among the newest 1"),
        (RuleRecord(), "Undescribed", ""),
    ],
)
def test_rules_read_as_people_would_say_them(described: RuleRecord, label: str, predicate: str) -> None:
    assert label_of(described, _TITLES) == label
    assert predicate_of(described) == predicate


def test_the_count_in_a_predicate_is_the_least_that_passes_its_threshold() -> None:
    for count in (1, 2, 7, 229, 3_428, 41_903, 100_000):
        at = predicate_of(rule(("", "popularity", "", float(np.log1p(np.float32(count))))))
        between = predicate_of(rule(("", "popularity", "", float(np.float32(np.log1p(count - 0.5))))))
        assert at == between == f"count of the newest item >= {count}"


def test_a_set_is_named_after_what_most_of_its_items_share() -> None:
    matrix = sparse.csr_matrix(np.array([[0, 0, 0], [1, 1, 1], [1, 1, 0], [1, 0, 1], [1, 0, 0]], np.float32))
    facets = FacetTable(
        ("genre=Drama", "genre=Horror", "popularity=band 4 of 4"), ("genre", "genre", "popularity"), matrix
    )
    assert shared_facets([1, 2, 3], facets) == "Horror, Drama"
    assert shared_facets([1, 3, 4], facets) == "Drama"
    assert shared_facets([1], facets) == ""
    described = RuleRecord(item_ids=("1", "2"), window=2)
    assert label_of(described, _TITLES, "like “Alien”").startswith("Like “Alien”, any of: ")
    assert label_of(described, _TITLES, "Horror") == "Horror, any of: Star Wars (1977); Alien (1979)"


def test_an_item_without_a_title_is_named_by_its_id() -> None:
    assert label_of(RuleRecord(item_ids=("7", "1"), window=1), _TITLES | {"7": ""}) == "Any of: 7; Star Wars (1977)"


def test_output_labels_name_facets_before_titles() -> None:
    promoted = [ItemScore("1", "Star Wars (1977)", 1.0), ItemScore("2", "", 0.5)]
    assert output_label_of([FacetLift("genre=Sci-Fi", 2.0, 1.0)], promoted) == "Sci-Fi"
    assert output_label_of([], promoted) == "Star Wars (1977); 2"
    assert output_label_of([], []) == ""


def test_the_difference_of_two_shares_has_newcombe_s_interval() -> None:
    found = difference(56, 70, 48, 80)  # Newcombe (1998), method 10: .0524 to .3339
    assert found["difference"] == pytest.approx(0.2)
    assert found["low"] == pytest.approx(0.0524, abs=1e-4)
    assert found["high"] == pytest.approx(0.3339, abs=1e-4)
