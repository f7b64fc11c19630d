"""What people see of a preview for many users: the tables, the plot, and how the command reads its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console
from typer.testing import CliRunner

from recsae.cli.app import app
from recsae.cli.panel_plot import write_panel_plot
from recsae.cli.panel_views import panel
from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.v1 import common_pb2, steering_pb2

SVG = "{http://www.w3.org/2000/svg}"


def pair(before: float, after: float, reach: float = 0.01) -> steering_pb2.PanelPair:
    change = after - before
    estimate = steering_pb2.PanelEstimate(mean=change, low=change - reach, high=change + reach)
    return steering_pb2.PanelPair(before=before, after=after, difference=estimate)


def response(**values: Any) -> steering_pb2.PreviewPanelResponse:
    def item(name: str, score: float) -> common_pb2.ScoredItem:
        return common_pb2.ScoredItem(item_id=name, title=name.title(), score=score)

    example = steering_pb2.PanelExample(
        user_id="u-[7]",
        before=[item("alien", 2.0), item("heat", 1.0)],
        after=[
            steering_pb2.PreviewItem(item=item("saw", 3.0)),
            steering_pb2.PreviewItem(item=item("alien", 2.0), rank_before=1),
        ],
    )
    return steering_pb2.PreviewPanelResponse(
        **{
            "users": 200,
            "users_changed": 150,
            "model": "sasrec",
            "overlap": steering_pb2.PanelEstimate(mean=0.71, low=0.69, high=0.73),
            "entered": steering_pb2.PanelEstimate(mean=2.9, low=2.7, high=3.1),
            "facet": "genre=Horror",
            "target_share": pair(0.1, 0.25),
            "off_target": [
                steering_pb2.FacetShift(facet="genre=[War]", share=pair(0.2, 0.12)),
                steering_pb2.FacetShift(facet="year=$1999", share=pair(0.3, 0.33)),
            ],
            "coverage": pair(0.4, 0.45),
            "popularity": pair(0.9, 0.85),
            "ndcg": pair(0.08, 0.0775, 0.002),
            "expected_loss_upper": 0.031,
            "refused": {"over_norm_budget": 3},
            "examples": [example],
            **values,
        }
    )


def shown(reply: steering_pb2.PreviewPanelResponse) -> str:
    console = Console(width=160, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(panel(reply))
    return captured.get()


def test_the_tables_tell_shares_with_intervals_costs_and_examples() -> None:
    words = shown(response())
    rows = [line.split() for line in words.splitlines()]
    assert [
        "share",
        "of",
        "genre=Horror",
        "10.0",
        "%",
        "25.0",
        "%",
        "+15.00",
        "+14.00",
        "to",
        "+16.00",
        "points",
    ] in rows
    assert ["genre=[War]", "20.0", "%", "12.0", "%", "-8.00", "-9.00", "to", "-7.00", "points"] in rows
    assert [
        "NDCG",
        "of",
        "the",
        "newest",
        "item,",
        "hidden",
        "0.0800",
        "0.0775",
        "-0.0025",
        "-0.0045",
        "to",
        "-0.0005",
    ] in rows
    assert "Lists of 75.0 % of the users change: overlap 0.71 [0.69, 0.73]" in words
    assert "costs at most 3.1 % of NDCG@10" in words
    assert "Rows left as they are: 3 over norm budget." in words
    assert "User u-[7]" in words
    assert "Within what is safe." in words


def test_what_is_not_known_is_left_out_or_said() -> None:
    bare = response(off_target=[], outside_safe_range="add=9 lies outside", refused={})
    for name in ("target_share", "popularity", "ndcg", "coverage", "expected_loss_upper"):
        bare.ClearField(name)
    words = shown(bare)
    assert "was not measured" in words
    assert "No other facet is known to change." in words
    assert "Not known to be safe: add=9 lies outside" in words
    assert not [one for one in ("share of", "NDCG of", "popularity", "Rows left") if one in words]


def test_the_plot_has_a_row_per_facet_before_and_after_and_is_the_same_file_again(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.svg", "two.svg")]
    for path in paths:
        write_panel_plot(path, response())
    assert paths[0].read_bytes() == paths[1].read_bytes()
    tree = ElementTree.parse(paths[0])
    words = {"".join(node.itertext()).strip() for node in tree.iter(f"{SVG}text")}
    assert {"genre=Horror (target)", "genre=[War]", "year=$1999", "before", "after"} <= words
    marks = {node.get("id", ""): [use.get("x", "") for use in node.iter(f"{SVG}use")] for node in tree.iter(f"{SVG}g")}
    assert [len(marks[name]) for name in ("before", "after", "differences")] == [3, 3, 3]
    assert float(marks["before"][0]) < float(marks["after"][0]), "what grew moved right"
    assert float(marks["before"][1]) > float(marks["after"][1])


def test_a_plot_of_nothing_and_of_a_strange_format_is_refused(tmp_path: Path) -> None:
    bare = response(off_target=[])
    bare.ClearField("target_share")
    with pytest.raises(FailedPreconditionError, match="nothing to plot"):
        write_panel_plot(tmp_path / "one.svg", bare)
    with pytest.raises(InvalidRequestError, match="ends in"):
        write_panel_plot(tmp_path / "one.gif", response())


def run(*arguments: str) -> Any:
    where = ["--recommender", "127.0.0.1:1", "--interpreter", "127.0.0.1:1", "preview"]
    return CliRunner().invoke(app, [*where, *arguments])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give a user id"),
        (("42", "--users", "10"), "give a user id"),
        (("42", "--item", "i-1"), "give a user id"),
        (("42", "--policy", "p-1"), "give a user id"),
        (("--user", "u-1", "--segment", "a=1"), "not both"),
        (("--users", "10", "--candidate", "i-1"), "belong to one user"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_asked(arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments, "--op", "c-1:ablate")
    assert done.exit_code == 2
    assert words in " ".join(done.output.replace("│", " ").split())


def test_a_plot_that_cannot_be_written_is_refused_before_the_work() -> None:
    done = run("--users", "10", "--op", "c-1:ablate", "--plot", "shares.gif")
    assert isinstance(done.exception, InvalidRequestError), "nobody answers at that address"
