"""Groups of users as people name them: rules, files, refusals that say what there is."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from recsae.cli.group_views import group_differences
from recsae.cli.user_groups import Rule, drawn, group_of_users, ids_of_file, members, parse_group
from recsae.datasets.schema import Dataset, Histories, ItemTable, UserTable
from recsae.errors import InvalidRequestError, NotFoundError
from recsae.v1 import interpreter_pb2


def make_dataset() -> Dataset:
    """Items 1-10 are Horror, 11-20 Comedy; user 0 saw Horror only, 1 half of each, 2 Comedy only, 3 nothing."""
    ids = tuple(f"i{item}" for item in range(1, 21))
    genres = ("Horror",) * 10 + ("Comedy",) * 10
    rows = [[1, 2, 3, 4], [5, 6, 11, 12], [13, 14, 15], []]
    lengths = [len(row) for row in rows]
    histories = Histories(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([item for row in rows for item in row], np.int32),
        np.arange(sum(lengths), dtype=np.float64),
    )
    users = UserTable(("a", "b", "c", "d"), {"gender": ("F", "M", "F", "F")})
    return Dataset("small", ItemTable(ids, ids, {"genre": genres}), users, histories)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("genre=Horror", Rule("", "genre", "Horror", None)),
        ("genre=Sci-Fi>=0.4", Rule("", "genre", "Sci-Fi", 0.4)),
        ("item:decade=1980s >= .25", Rule("item", "decade", "1980s", 0.25)),
        ("user:gender=F", Rule("user", "gender", "F", None)),
        ("title=a=b", Rule("", "title", "a=b", None)),
        ("@ids.txt", Path("ids.txt")),
    ],
)
def test_groups_are_read_as_people_write_them(text: str, parsed: Rule | Path) -> None:
    assert parse_group(text) == parsed


@pytest.mark.parametrize("text", ["", "Horror", "genre=", "genre=Horror>=2", "genre=Horror>=0", "genre=Horror>=."])
def test_what_names_no_group_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"genre=Horror>=0\.4"):
        parse_group(text)


def test_a_facet_asks_for_a_share_of_what_a_user_consumed() -> None:
    dataset = make_dataset()
    assert members(dataset, Rule("", "genre", "Horror", None)).tolist() == [True, True, False, False]
    assert members(dataset, Rule("item", "genre", "Horror", 0.6)).tolist() == [True, False, False, False]


def test_an_attribute_holds_for_users_with_a_history() -> None:
    assert members(make_dataset(), Rule("", "gender", "F", None)).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (Rule("", "gender", "X", None), "no user has gender=X; gender is F, M"),
        (Rule("user", "genre", "Horror", None), "no attribute 'genre', only gender"),
        (Rule("", "gender", "F", 0.5), "which has no share"),
        (Rule("", "genre", "Western", None), "genre is Comedy, Horror"),
        (Rule("", "mood", "sad", None), "facets are of genre.* attributes of users: gender"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(rule: Rule, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        members(make_dataset(), rule)


def test_ids_of_a_file_are_taken_once(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("b\n\n a \nb\n")
    assert ids_of_file(tmp_path / "ids") == ["b", "a"]
    with pytest.raises(NotFoundError, match="one id a line"):
        ids_of_file(tmp_path / "none")


def test_a_draw_is_bounded_even_and_repeatable() -> None:
    candidates = np.ones(1_000, bool)
    first = drawn(candidates, 100, 7)
    np.testing.assert_array_equal(first, drawn(candidates, 100, 7))
    assert len(set(first.tolist())) == 100
    assert 350 < first.mean() < 650
    assert drawn(np.array([True, False, True]), 9, 0).tolist() == [0, 2]


def test_users_are_sent_by_what_they_consumed_and_not_by_id() -> None:
    group = group_of_users(make_dataset(), np.array([1, 2]))
    assert [list(one.item_ids) for one in group.histories] == [["i5", "i6", "i11", "i12"], ["i13", "i14", "i15"]]
    assert not group.user_ids


def test_differences_are_shown_with_intervals_and_labels_as_text() -> None:
    difference = interpreter_pb2.GroupDifference(
        concept=interpreter_pb2.Concept(id="c-00000001", label="[red]Horror[/]"),
        rate_a=0.4,
        rate_b=0.1,
        rate_difference=interpreter_pb2.Estimate(value=0.3, low=0.2, high=0.4),
        auc=0.7,
        q=1e-9,
    )
    reply = interpreter_pb2.CompareGroupsResponse(differences=[difference], users_a=1_000, users_b=50, tested=300)
    console = Console(width=160, file=StringIO(), record=True)
    console.print(group_differences(reply, "genre=Horror", "[bold]x"))
    shown = console.export_text()
    for part in ("[red]Horror[/]", "[bold]x (50 users)", ".300 [.200, .400]", "40.0%", "1e-09", "1 of the 1 shown"):
        assert part in shown, part
