"""The benchmark of evidence measures what a refresh does: every row read once, shard by shard, then merged."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from benchmarks.evidence import evidence_table, summary, write_inputs
from benchmarks.evidence_point import Measured, Point, measure_point
from benchmarks.planted import Planted
from rich.console import Console

POINT = Point(rows=5_000, shard_rows=1_000)


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    write_inputs(tmp_path, POINT, Planted(d=8, atoms=32, active=2), width=64, k=4)
    return measure_point(POINT, tmp_path)


def test_every_row_is_read_once_and_the_figures_are_those_of_the_files(measured: Measured, tmp_path: Path) -> None:
    assert measured.firings == POINT.rows * 4
    assert 0 < measured.buckets <= measured.firings
    assert 0 < measured.shard_mib < measured.merged_mib
    assert measured.map_seconds > 0 < measured.merge_seconds
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) == 5


def test_a_point_is_one_row_of_the_table_and_one_line_of_json(measured: Measured) -> None:
    line = summary(POINT, measured)
    assert (line["bench"], line["rows"], line["shards"]) == ("evidence", 5_000, 5)
    assert line["us"] == pytest.approx(1e6 * (measured.map_seconds + measured.merge_seconds) / 5_000, abs=0.01)
    out = io.StringIO()
    Console(file=out, width=200).print(evidence_table([(POINT, measured)]))
    assert "5,000" in out.getvalue()
