"""A verdict says which of its thresholds a label misses."""

from __future__ import annotations

from dataclasses import replace

from recsae.concepts.thresholds import Standing

GOOD = Standing(
    positives=300, negatives=2_000, hard_negatives=150, precision_low=0.9, recall_low=0.8, balanced_f1=0.9,
    matched_f1=0.9, hard_f1=0.8, swapped_f1=0.4,
)  # fmt: skip


def test_a_label_that_reaches_every_threshold_misses_none() -> None:
    at_the_edge = replace(GOOD, hard_negatives=100, precision_low=0.7, recall_low=0.7, balanced_f1=0.8, hard_f1=0.7)
    assert GOOD.misses() == at_the_edge.misses() == []


def test_every_miss_is_named_with_its_value() -> None:
    found = replace(GOOD, hard_negatives=5, recall_low=0.65, hard_f1=0.5, swapped_f1=0.95).misses()
    assert found == [
        "only 5 hard negatives (a near neighbour fires, this one does not), a verdict takes 100",
        "lower bound of recall 0.65, at least 0.7 is asked for",
        "F1 against hard negatives 0.50, at least 0.7 is asked for",
        "labels of other concepts reach a balanced F1 of 0.95",
    ]


def test_scores_of_too_few_cases_are_not_held_against_a_label() -> None:
    found = replace(GOOD, positives=20, recall_low=0.1).misses()
    assert found == ["only 20 cases of it on unseen users, a verdict takes 100"]
