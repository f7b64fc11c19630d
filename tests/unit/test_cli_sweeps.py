"""What people see of a sweep: the table, the plot file and the bar of a training stage."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from rich.console import Console

from recsae.cli.commands.sae import grid_of
from recsae.cli.run_bars import bar_text, short_count, short_time
from recsae.cli.sweep_plot import write_plot
from recsae.cli.sweep_table import BEST, results_of, sweep_json, sweep_table
from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.pipeline.sweeps import NDCG_KEPT, PointResult, SweepPoint
from recsae.v1 import pipeline_pb2

SVG = "{http://www.w3.org/2000/svg}"


def result(width: int, k: int, kept: float, seed: int = 0, variant: str = "topk", fvu: float = 0.0721) -> PointResult:
    scores = {
        "sae.l0": float(k), "sae.dead": 0.012, "sae.fvu": fvu, NDCG_KEPT: kept, f"{NDCG_KEPT}_low": kept - 0.01,
        f"{NDCG_KEPT}_high": kept + 0.01, f"{NDCG_KEPT}_adaptive_pca": 0.9, "activations_per_s": 41_234.0,
    }  # fmt: skip
    return PointResult(SweepPoint(width, k, variant, seed), scores)


def lines_of(results: list[PointResult]) -> list[list[str]]:
    """Cells of the printed table's rows."""
    out = io.StringIO()
    Console(file=out, width=160, color_system=None).print(sweep_table("Sweep", results))
    return [line.split() for line in out.getvalue().splitlines() if line.strip()]


def test_the_table_shows_every_measure_of_a_point_and_marks_the_best_of_each_k() -> None:
    lines = lines_of([result(512, 8, 0.95), result(1024, 8, 0.97), result(512, 16, 0.99)])
    row = ["512", "8", "topk", "8.0", "1.2", "%", ".0721", ".950", "[.940,", ".960]", ".900", "41.2k"]
    assert row in lines
    marked = [line for line in lines if line[0] == BEST and line[1].isdigit()]
    assert [(line[1], line[2]) for line in marked] == [("1024", "8"), ("512", "16")]


def test_several_seeds_stand_above_their_mean_and_spread_which_carries_the_mark() -> None:
    lines = lines_of([result(512, 8, 0.95, 0), result(512, 8, 0.97, 1), result(1024, 8, 0.965, 0)])
    (mean,) = [line for line in lines if "mean" in line]
    assert " ".join(mean) == "512 8 topk mean 8.0 1.2 % .0721 .960 ± .014, n = 2 .900 41.2k"
    assert [line[1] for line in lines if line[0] == BEST and line[1].isdigit()] == ["1024"]


def test_a_k_of_half_the_dimension_is_marked_as_not_sparse() -> None:
    wide = result(512, 32, 0.99)
    results = [PointResult(one.point, {**one.scores, "sae.d": 64.0}) for one in (result(512, 31, 0.95), wide)]
    lines = lines_of(results)
    assert [line[line.index("512") + 1] for line in lines if "512" in line] == ["31", "32†"]
    assert any("not sparse" in " ".join(line) for line in lines)
    assert not any("not sparse" in " ".join(line) for line in lines_of(results[:1]))


def test_a_point_that_failed_says_why_in_its_row() -> None:
    failed = PointResult(SweepPoint(512, 8, "topk", 1), {}, "training diverged [lower learning_rate]")
    text = " ".join(" ".join(line) for line in lines_of([result(512, 8, 0.95), failed]))
    assert "diverged" in text
    assert "learning_rate]" in text


def test_json_holds_points_and_their_means() -> None:
    run = pipeline_pb2.Run(id="r-1", state=pipeline_pb2.RUN_STATE_SUCCEEDED)
    for seed, kept in enumerate((0.9, 0.8)):
        one = result(512, 8, kept, seed)
        run.points.add(name=one.point.name, width=512, k=8, variant="topk", seed=seed, scores=one.scores)
    value = json.loads(json.dumps(sweep_json(run)))
    assert [point["name"] for point in value["points"]] == ["w512-k8-topk-s0", "w512-k8-topk-s1"]
    (configuration,) = value["configurations"]
    assert configuration["best_of_k"] is True
    assert configuration["scores"][NDCG_KEPT]["mean"] == pytest.approx(0.85)
    assert results_of(run)[1] == result(512, 8, 0.8, 1)


def drawn(path: Path) -> tuple[set[str], dict[str, list[str]]]:
    """Words of an SVG file, and per line its id and the end points of its segments."""
    tree = ElementTree.parse(path)
    words = {"".join(node.itertext()).strip() for node in tree.iter(f"{SVG}text")}
    groups = {node.get("id", ""): node for node in tree.iter(f"{SVG}g")}
    return words, {name: [use.get("y", "") for use in node.iter(f"{SVG}use")] for name, node in groups.items()}


def test_the_plot_has_three_labelled_panels_with_a_line_per_variant_and_width(tmp_path: Path) -> None:
    path = tmp_path / "sweep.svg"
    results = [
        result(width, k, kept, seed, variant)
        for width, k, kept in ((512, 8, 0.9), (512, 16, 0.95), (1024, 8, 0.92), (1024, 16, 0.97))
        for seed in (0, 1)
        for variant in ("topk", "matryoshka")
    ]
    write_plot(path, "Sweep of sasrec", results)
    words, marks = drawn(path)
    assert {"Sweep of sasrec", "NDCG@10 kept", "dead latents (share)", "FVU", "adaptive PCA"} <= words
    assert {f"{variant}, width {width}" for variant in ("topk", "matryoshka") for width in (512, 1024)} <= words
    assert "L0 (latents that fire per vector)" in words
    for score in (NDCG_KEPT, "sae.dead", "sae.fvu"):
        for variant in ("topk", "matryoshka"):
            for width in (512, 1024):
                assert len(marks[f"{score}/{variant}/{width}"]) == 2, "a mark per k"
                assert len(marks[f"{score}/{variant}/{width}/seeds"]) == 4, "a mark per k and seed"
    assert len(marks[f"{NDCG_KEPT}/adaptive-pca"]) == 2
    assert {name for name in marks if name.endswith("/interval")} == {
        f"{NDCG_KEPT}/{variant}/{width}/interval" for variant in ("topk", "matryoshka") for width in (512, 1024)
    }
    better, worse = (float(marks[f"{NDCG_KEPT}/topk/{width}"][0]) for width in (1024, 512))
    assert better < worse, "what keeps more stands higher"


def test_the_same_sweep_is_the_same_file(tmp_path: Path) -> None:
    contents = []
    for name in ("one.svg", "two.svg"):
        write_plot(tmp_path / name, "Sweep", [result(512, 8, 0.9)])
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("sweep.gif", InvalidRequestError, r"ends in \.svg, \.png, \.pdf"),
        ("nowhere/sweep.svg", FailedPreconditionError, "no folder"),
    ],
)
def test_a_file_that_cannot_be_drawn_is_refused(tmp_path: Path, name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        write_plot(tmp_path / name, "Sweep", [result(512, 8, 0.9)])


def test_comma_separated_lists_make_the_grid() -> None:
    grid = grid_of("512, 1024", "8", "topk,matryoshka", "0,1,2")
    assert (list(grid.widths), list(grid.ks)) == ([512, 1024], [8])
    assert (list(grid.variants), list(grid.seeds)) == (["topk", "matryoshka"], [0, 1, 2])


@pytest.mark.parametrize("text", ["512,wide", "-1", "1.5", "99999999999"])
def test_a_list_that_is_no_list_of_numbers_is_refused_by_option(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="--width '"):
        grid_of(text, "", "topk", "0")


def test_the_bar_of_training_shows_its_measures_and_a_finished_one_its_result() -> None:
    measures = {"activations_per_s": 412_345.0, "fvu": 0.0213, "l0": 16.0, "dead": 0.0, "eta_s": 12.4}
    stage = pipeline_pb2.Stage(name="train", detail="step 10 of 20", measures=measures)
    stage.state = pipeline_pb2.RUN_STATE_RUNNING
    assert bar_text(stage) == "step 10 of 20 · 412k act/s · FVU .021 · L0 16.0 · 0 dead · 12 s left"
    stage.state = pipeline_pb2.RUN_STATE_SUCCEEDED
    assert bar_text(stage) == "step 10 of 20"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (950, "950"),
        (999.9, "1.00k"),
        (1_234, "1.23k"),
        (41_234, "41.2k"),
        (412_345, "412k"),
        (1.05e6, "1.05M"),
    ],
)
def test_counts_are_shown_with_three_digits(value: float, words: str) -> None:
    assert short_count(value) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7_810, "2 h 10 min")],
)
def test_times_are_shown_in_their_two_largest_units(seconds: float, words: str) -> None:
    assert short_time(seconds) == words
