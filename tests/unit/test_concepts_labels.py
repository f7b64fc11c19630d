"""Labels are words people use, predicates are exact."""

from __future__ import annotations

import pytest

from recsae.concepts.labels import label_of, output_label_of, predicate_of
from recsae.concepts.records import FacetLift, ItemScore, LiteralRecord, RuleRecord
from recsae.concepts.summary import difference

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
