"""What the benchmarks rest on: planted data, the score, the floor, turns, the line of JSON. No speed is asserted."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from benchmarks.contenders.contract import Task
from benchmarks.contenders.dense import fp32
from benchmarks.contenders.ours import torch_exact
from benchmarks.contenders.roster import OURS_TORCH, ROSTER, Entry
from benchmarks.crew import Worker
from benchmarks.floor import Floor, floor_of
from benchmarks.growth import measure, write_shards
from benchmarks.growth_point import Point
from benchmarks.machine import this_machine
from benchmarks.peaks import Peaks
from benchmarks.planted import Planted
from benchmarks.race import Data, Plan, Result, race
from benchmarks.report import contenders_table, fastest, floor_table, summary
from benchmarks.scores import Quality, fvu, quality
from benchmarks.shapes import HELD_OUT_ROWS, SHAPES, Shape
from rich.console import Console

TINY = Planted(d=8, atoms=32, active=2)
SHAPE = Shape("S", d=8, width=64, k=4, stream=6 * 4096)
FLOOR = Floor(encoder_us=2.0, sparse_flops_us=0.5, sparse_bytes_us=1.0, optimiser_us=1.0)


def rows(planted: Planted, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.concatenate(list(planted.blocks(count)))


def entry(name: str, *, public: bool, exact: bool = True) -> Entry:
    return Entry(name, "module:function", "own", public, exact)


def test_planted_rows_are_the_same_however_many_are_asked_for() -> None:
    assert np.array_equal(rows(TINY, 60_000)[:100], rows(TINY, 100))
    assert not np.array_equal(TINY.held_out(100), rows(TINY, 100))


def test_planted_rows_are_centred_with_mean_square_norm_one() -> None:
    x = rows(TINY, 50_000).astype(np.float64)
    assert np.square(x).sum(axis=1).mean() == pytest.approx(1.0, abs=0.02)
    assert np.abs(x.mean(axis=0)).max() < 0.01


def test_planted_rows_are_sparse_sums_of_the_planted_directions() -> None:
    bare = Planted(d=64, atoms=16, active=1, noise_share=0.0)
    x = rows(bare, 500)
    gaps = x[1:] - x[0]  # the constant offset cancels: what is left of two rows lies in two directions
    directions = bare.directions
    for gap in gaps[:20]:
        strengths, *_ = np.linalg.lstsq(directions.T, gap, rcond=None)
        assert (np.abs(strengths) > 1e-4).sum() <= 2


def test_a_stream_on_disk_holds_the_planted_rows(tmp_path: Path) -> None:
    TINY.write(tmp_path / "x.npy", 70_000)
    assert np.array_equal(np.load(tmp_path / "x.npy"), rows(TINY, 70_000))


def test_fvu_is_zero_for_the_rows_and_one_for_their_mean() -> None:
    x = rows(TINY, 300) + np.float32(7.0)
    assert fvu(x, x) == 0.0
    assert fvu(x, np.broadcast_to(x.mean(axis=0), x.shape)) == pytest.approx(1.0, abs=1e-6)


def test_fvu_is_a_ratio_of_sums_in_any_unit() -> None:
    x = np.array([[0.0, 0.0], [2.0, 0.0]], np.float32)
    assert fvu(x, x + np.float32(0.5)) == pytest.approx((4 * 0.25) / 2.0)
    assert fvu(x * 10, (x + np.float32(0.5)) * 10) == pytest.approx(0.5)


def test_the_schedule_rises_to_the_rate_and_falls_to_nothing() -> None:
    task = Task(d=8, width=64, k=4, batch=16, steps=20, rate=0.5)
    rates = [task.rate_at(step) for step in range(21)]
    assert max(rates) == rates[task.warm_up - 1] == 0.5
    assert rates[0] < 0.5
    assert rates[20] == 0.0
    assert rates[2:] == sorted(rates[2:], reverse=True)


@pytest.mark.parametrize("make", [fp32, torch_exact])
def test_contenders_of_this_environment_learn_and_keep_unit_latents(make: object) -> None:
    assert callable(make)
    steps, batch = 60, 256
    contender = make(Task(d=8, width=64, k=4, batch=batch, steps=steps, rate=1e-2))
    stream, held_out = rows(TINY, steps * batch), TINY.held_out(1000)
    contender.step(stream[:batch])
    before = quality(contender, held_out)
    for at in range(batch, len(stream), batch):
        contender.step(stream[at : at + batch])
    after = quality(contender, held_out)
    assert after.fvu < 0.5 * before.fvu
    assert after.fvu < 0.5
    assert 0.0 <= after.dead < 1.0
    assert contender.reconstruct(held_out).shape == held_out.shape


def test_a_race_of_real_processes_times_every_round_and_scores_the_loss(tmp_path: Path) -> None:
    data = Data(tmp_path / "stream.npy", tmp_path / "held-out.npy")
    TINY.write(data.stream, SHAPE.stream)
    np.save(data.held_out, TINY.held_out(500))
    plan = Plan(rounds=2, rates=(1e-5, 2e-2), stream_share=1.0)
    (ours,) = (one for one in ROSTER if one.name == OURS_TORCH)
    broken = Entry("broken", "benchmarks.contenders.ours:no_such", "own", public=True)
    with Worker(ours, 1, tmp_path / "ours.log") as first, Worker(broken, 1, tmp_path / "broken.log") as second:
        good, bad = race([first, second], SHAPE, data, plan, lambda _: None)
    assert len(good.per_round) == 2
    assert all(speed > 0 for speed in good.per_round)
    assert 0 < good.core_share < 1.5
    assert good.quality is not None
    assert 0 < good.quality.fvu < 1
    assert good.rate == 2e-2  # the other one learns next to nothing
    assert good.flags == "fp32"
    assert "no_such" in bad.failure
    assert math.isnan(bad.speed)


def test_the_floor_adds_what_is_mandatory() -> None:
    (shape,) = (one for one in SHAPES if one.name == "S")
    peaks = Peaks(gemm_flops=1e11, read={"S": 1e10}, copy={"S": 1e10})
    cached = floor_of(shape, peaks, l2_bytes=1 << 20)
    assert cached.encoder_us == pytest.approx(2 * 64 * 2048 / 1e5)
    assert cached.sparse_us == pytest.approx(8 * 32 * 64 / 1e5)
    assert cached.optimiser_us == pytest.approx(28 * (2 * 64 * 2048 + 64 + 2048) / 4096 / 1e4)
    assert cached.total_us == pytest.approx(cached.encoder_us + cached.sparse_us + cached.optimiser_us)
    beyond = floor_of(shape, peaks, l2_bytes=1 << 10)
    assert beyond.sparse_us == pytest.approx(12 * 32 * 64 / 1e4)


def test_the_share_of_the_floor_is_one_at_the_floor() -> None:
    assert FLOOR.total_us == 4.0
    assert FLOOR.share_of(250_000) == pytest.approx(1.0)
    assert FLOOR.share_of(125_000) == pytest.approx(0.5)


def test_disturbed_peaks_are_replaced_by_better_ones() -> None:
    first, second = Peaks(2.0, {"S": 1.0}, {"S": 4.0}), Peaks(1.0, {"S": 3.0}, {"S": 3.0})
    assert first.better_of(second) == Peaks(2.0, {"S": 3.0}, {"S": 4.0})


def results() -> list[Result]:
    return [
        Result(
            entry("ours, int8", public=False, exact=False), "int8", [400.0, 900.0, 500.0], 1.0, Quality(0.1, 0.0), 1e-3
        ),
        Result(entry("ours, exact", public=False), "fp32", [300.0], 1.0, Quality(0.11, 0.0), 1e-3),
        Result(entry("theirs, bf16", public=True, exact=False), "bf16", [200.0], 0.5, Quality(0.2, 0.0), 1e-3),
        Result(entry("theirs", public=True), "fp32", [100.0], 0.5, Quality(0.15, 0.5), 1e-3),
        Result(entry("broken", public=True), failure="broken: no such thing"),
    ]


def test_the_last_line_says_who_won_and_by_how_much() -> None:
    line = json.loads(json.dumps(summary({"S": results()}, {"S": FLOOR})))
    assert line["bench"] == "sae"
    assert {"ours", "best_public", "ratio", "fvu_ours", "fvu_public", "floor_share"} <= line["S"].keys()
    assert line["S"]["ours"] == 500  # the median, of the fastest
    assert (line["S"]["best_public"], line["S"]["ratio"]) == (200, 2.5)
    assert (line["S"]["fvu_ours"], line["S"]["fvu_public"], line["S"]["fvu_best_public"]) == (0.1, 0.2, 0.15)
    assert (line["S"]["ours_fp32"], line["S"]["best_public_fp32"], line["S"]["ratio_fp32"]) == (300, 100, 3.0)
    assert line["S"]["cores"] == 0.75
    assert line["S"]["floor_share"] == round(4.0 * 300 / 1e6, 3)


def test_what_was_not_measured_is_null() -> None:
    alone = summary({"S": results()[:1]}, {"S": FLOOR})["S"]
    assert alone["best_public"] is alone["ratio"] is alone["fvu_public"] is alone["floor_share"] is None
    assert fastest([results()[-1]]) is None


def test_tables_show_every_contender_and_its_failure() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(contenders_table(SHAPE, results()))
    console.print(floor_table({"S": FLOOR}, {"S": results()}))
    text = console.export_text()
    assert all(result.entry.name in text for result in results())
    assert "no such thing" in text
    assert "fastest public" in text


def test_growth_is_measured_on_shards_in_a_process_of_its_own(tmp_path: Path) -> None:
    write_shards(tmp_path, 100_010, TINY)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    measured = measure(Point(rows=2000, d=8, width=32, k=2), tmp_path, threads=1)
    assert measured.seconds > 0
    assert 0 < measured.fvu < 1.5
    assert measured.resident_mib > measured.anonymous_mib


def test_the_roster_names_each_contender_once_and_public_ones_are_pinned() -> None:
    names = [one.name for one in ROSTER]
    assert len(set(names)) == len(names)
    assert {"sae-lens", "dictionary-learning", "dense PyTorch", "eai-sparsify, Adam"} <= set(names)
    assert all(Path("/".join(one.factory.split(":")[0].split(".")) + ".py").suffix for one in ROSTER)
    assert all(one.runs_on(one.needs or ("anything",)) for one in ROSTER)
    assert [one.name for one in ROSTER if one.needs and one.runs_on(())] == []


def test_the_machine_is_described_with_a_plausible_cache() -> None:
    machine = this_machine()
    assert machine.processor
    assert machine.l2_bytes >= 1 << 17
    assert HELD_OUT_ROWS > 0
