"""Counters add, survive their bytes and count what a brute-force loop counts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.drift.arena import CounterArena
from recsae.drift.counters import BUCKETS, ConceptCounters, Series, bucket_of
from recsae.drift.panes import MAX_CONTRIBUTIONS, PANE_S, RETENTION_S, InMemoryPaneStore
from recsae.errors import InvalidRequestError

WIDTH, K, DIM = 12, 3, 5
MEAN = np.linspace(-1, 1, DIM, dtype=np.float32)


def rows(seed: int, n: int) -> dict[str, NDArray[np.float32] | NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    indices = np.stack([rng.choice(WIDTH, K, replace=False) for _ in range(n)]).astype(np.int32)
    values = np.maximum(rng.normal(0.5, 1.0, (n, K)), 0).astype(np.float32)
    x = rng.normal(size=(n, DIM)).astype(np.float32)
    return {"indices": indices, "values": values, "x": x, "x_hat": (x * 0.9).astype(np.float32)}


def counted(seed: int, n: int, at: float) -> ConceptCounters:
    counters = ConceptCounters(WIDTH)
    batch = rows(seed, n)
    counters.add(batch["indices"], batch["values"], batch["x"], batch["x_hat"], mean=MEAN, at=at)  # type: ignore[arg-type]
    return counters


def assert_same(one: ConceptCounters, other: ConceptCounters) -> None:
    assert one.n == other.n
    np.testing.assert_array_equal(one.fired, other.fired)
    np.testing.assert_array_equal(one.buckets, other.buckets)
    np.testing.assert_array_equal(one.last_fired, other.last_fired)
    np.testing.assert_allclose(one.total, other.total)
    np.testing.assert_allclose(one.squares, other.squares)
    np.testing.assert_allclose([one.fvu_numerator, one.fvu_denominator], [other.fvu_numerator, other.fvu_denominator])


def test_counts_equal_a_loop_over_rows() -> None:
    batch = rows(1, 50)
    counters = counted(1, 50, at=7.0)
    for latent in range(WIDTH):
        fired = [
            float(value)
            for row, values in zip(batch["indices"], batch["values"], strict=True)
            for index, value in zip(row, values, strict=True)
            if index == latent and value > 0
        ]
        assert counters.fired[latent] == len(fired)
        assert counters.total[latent] == pytest.approx(sum(fired))
        assert counters.squares[latent] == pytest.approx(sum(value * value for value in fired))
        assert counters.buckets[latent].sum() == len(fired)
        assert counters.last_fired[latent] == (7.0 if fired else 0.0)
    x = np.asarray(batch["x"], np.float64)
    assert counters.fvu == pytest.approx(((0.1 * x) ** 2).sum() / ((x - MEAN) ** 2).sum(), rel=1e-4)


def test_merging_parts_in_any_order_equals_counting_all_rows() -> None:
    parts = [counted(seed, 20, at=float(seed)) for seed in (1, 2, 3)]
    forward, backward = ConceptCounters(WIDTH), ConceptCounters(WIDTH)
    for part in parts:
        forward.merge(part)
    for part in reversed(parts):
        backward.merge(part)
    whole = ConceptCounters(WIDTH)
    for seed in (1, 2, 3):
        batch = rows(seed, 20)
        whole.add(batch["indices"], batch["values"], batch["x"], batch["x_hat"], mean=MEAN, at=float(seed))  # type: ignore[arg-type]
    assert_same(forward, whole)
    assert_same(backward, whole)


def test_bytes_come_back_equal_and_are_small_when_little_fired() -> None:
    counters = counted(4, 30, at=9.0)
    assert_same(ConceptCounters.from_bytes(counters.to_bytes()), counters)
    wide = ConceptCounters(65_536)
    assert len(wide.to_bytes()) < 2_000
    assert_same(ConceptCounters.from_bytes(wide.to_bytes()), wide)


def test_buckets_are_exact_at_powers_of_two() -> None:
    values = np.array([1.0, 2.0, np.nextafter(2.0, 0.0), 0.5, 1e-30, 1e30])
    np.testing.assert_array_equal(bucket_of(values), [12, 13, 12, 11, 0, BUCKETS - 1])


def test_a_latent_outside_the_width_is_refused_and_changes_nothing() -> None:
    counters = ConceptCounters(4)
    batch = rows(1, 30)
    with pytest.raises(InvalidRequestError, match="outside width 4"):
        counters.add(batch["indices"], batch["values"], batch["x"], batch["x_hat"], mean=MEAN, at=1.0)  # type: ignore[arg-type]
    assert counters.n == 0
    assert counters.fvu_denominator == 0


def test_counters_of_different_widths_do_not_merge() -> None:
    with pytest.raises(InvalidRequestError, match="width 3"):
        ConceptCounters(4).merge(ConceptCounters(3))


def observe(arena: CounterArena, seed: int, n: int, at: float, batch_id: str = "", steered: bool = False) -> int:
    batch = rows(seed, n)
    return arena.observe(
        "m", "a" * 16, WIDTH, batch["indices"], batch["values"], batch["x"], batch["x_hat"],  # type: ignore[arg-type]
        mean=MEAN, at=at, batch_id=batch_id, steered=np.full(n, steered),
    )  # fmt: skip


def test_a_batch_sent_twice_is_counted_once() -> None:
    arena, panes = CounterArena(), InMemoryPaneStore()
    assert observe(arena, 1, 10, at=0.0, batch_id="b") == 10
    assert observe(arena, 1, 10, at=0.0, batch_id="b") == 0
    assert arena.flush(panes) == 10


def test_steered_rows_are_counted_apart() -> None:
    arena, panes = CounterArena(), InMemoryPaneStore()
    observe(arena, 1, 10, at=0.0)
    observe(arena, 2, 4, at=0.0, steered=True)
    arena.flush(panes)
    rows_by_side = {one.steered: panes.read(one, 0, 1)[0].counters.n for one in panes.series("m")}
    assert rows_by_side == {False: 10, True: 4}


class FailingOnce(InMemoryPaneStore):
    """Writes, then claims it did not: a lost answer."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = False

    def add(self, series: Series, counters: ConceptCounters, at: float, contribution: str) -> bool:
        added = super().add(series, counters, at, contribution)
        if not self.failed:
            self.failed = True
            raise ConnectionError
        return added


def test_a_write_whose_answer_was_lost_is_counted_once() -> None:
    arena, panes = CounterArena(), FailingOnce()
    observe(arena, 1, 10, at=0.0)
    with pytest.raises(ConnectionError):
        arena.flush(panes)
    arena.flush(panes)
    assert panes.read(Series("m", "a" * 16), 0, 1)[0].counters.n == 10


def test_replicas_add_up_within_a_pane_and_panes_stay_apart() -> None:
    panes, series = InMemoryPaneStore(), Series("m", "a" * 16)
    panes.add(series, counted(1, 5, 0.0), 1.0, "replica-1")
    panes.add(series, counted(2, 6, 0.0), 2.0, "replica-2")
    panes.add(series, counted(3, 7, 0.0), PANE_S + 1.0, "replica-1")
    assert [(pane.start_s, pane.counters.n) for pane in panes.read(series, 0, 10 * PANE_S)] == [(0, 11), (PANE_S, 7)]


def test_panes_are_bounded_and_expire() -> None:
    panes, series = InMemoryPaneStore(), Series("m", "a" * 16)
    one = counted(1, 1, 0.0)
    taken = [panes.add(series, one, 0.0, str(number)) for number in range(MAX_CONTRIBUTIONS + 2)]
    assert taken.count(False) == 2
    panes.add(series, one, RETENTION_S + PANE_S, "late")
    assert [pane.start_s for pane in panes.read(series, 0, 1e9)] == [RETENTION_S + PANE_S]
