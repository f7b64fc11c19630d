"""Activation shards and the order rows are trained in: complete, reproducible, bounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.errors import CorruptArtifactError, InvalidRequestError
from recsae.sae.batches import (
    ArrayRows,
    ShuffledBatches,
    evenly_spaced,
    measure_normalisation,
)
from recsae.sae.shards import ITEM_PROBE, ActivationShard, ShardReader, item_probes, write_shard

D = 5
FACTS = {"model": "sasrec", "model_version": "0123456789abcdef", "hook": "sequence"}


def _shard(start: int, n: int) -> ActivationShard:
    """Row i of the whole holds the value i everywhere."""
    rows = np.arange(start, start + n, dtype=np.int32)
    x = np.repeat(rows[:, None].astype(np.float32), D, axis=1)
    return ActivationShard(x, rows // 7, rows % 7, rows + 1)


def _write(folder: Path, sizes: tuple[int, ...] = (300, 1, 450, 249)) -> int:
    start = 0
    for number, size in enumerate(sizes):
        write_shard(folder, f"shard-{number:05}", _shard(start, size), FACTS)
        start += size
    return start


class Recorded:
    """Rows that remember how many were asked for at once and in all."""

    def __init__(self, rows: ArrayRows | ShardReader) -> None:
        self._rows = rows
        self.n, self.d, self.fingerprint = rows.n, rows.d, rows.fingerprint
        self.largest = self.total = 0

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        self.largest, self.total = max(self.largest, stop - start), self.total + stop - start
        return self._rows.read(start, stop)


def test_rows_come_back_across_shard_boundaries(tmp_path: Path) -> None:
    n = _write(tmp_path)
    reader = ShardReader.open_folders(tmp_path, verify=True)
    assert (reader.n, reader.d, reader.facts) == (n, D, FACTS)
    for start, stop in ((0, n), (299, 302), (300, 301), (10, 10), (n - 1, n), (250, 800)):
        np.testing.assert_array_equal(reader.read(start, stop)[:, 0], np.arange(start, stop))
        np.testing.assert_array_equal(reader.users(start, stop), np.arange(start, stop) // 7)
    whole = list(reader.shards())
    assert [len(shard.x) for shard in whole] == [300, 1, 450, 249]
    np.testing.assert_array_equal(np.concatenate([shard.item for shard in whole]), np.arange(1, n + 1))


def test_several_folders_are_read_as_one(tmp_path: Path) -> None:
    _write(tmp_path / "users", (40,))
    write_shard(
        tmp_path / "items", "probes", item_probes(np.ones((3, D), np.float32), np.arange(1, 4, dtype=np.int32)), FACTS
    )
    reader = ShardReader.open_folders(tmp_path / "users", tmp_path / "items")
    assert reader.n == 43
    np.testing.assert_array_equal(reader.users(40, 43), [ITEM_PROBE] * 3)


def test_files_named_without_their_manifest_are_refused(tmp_path: Path) -> None:
    manifest = write_shard(tmp_path, "a", _shard(0, 4), FACTS)
    file = tmp_path / "a.safetensors"
    assert ShardReader.open_files([file], verify=True).facts == FACTS
    manifest.unlink()
    with pytest.raises(CorruptArtifactError, match="collect it again"):
        ShardReader.open_files([file])


def test_equally_named_shards_of_other_content_have_another_fingerprint(tmp_path: Path) -> None:
    for folder, start in (("a", 0), ("b", 5), ("c", 0)):
        write_shard(tmp_path / folder, "sae-0000", _shard(start, 40), FACTS)
    a, b, c = (ShardReader.open_folders(tmp_path / folder).fingerprint for folder in "abc")
    assert a != b
    assert a == c


def test_a_shard_without_its_manifest_does_not_exist(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "shard-00003.json").unlink()
    assert ShardReader.open_folders(tmp_path).n == 751


def test_a_changed_shard_is_found_out(tmp_path: Path) -> None:
    _write(tmp_path)
    path = tmp_path / "shard-00002.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CorruptArtifactError, match="shard-00002"):
        ShardReader.open_folders(tmp_path, verify=True)
    path.write_bytes(b"torn")
    with pytest.raises(CorruptArtifactError, match="shard-00002"):
        ShardReader.open_folders(tmp_path)


def test_shards_of_different_models_are_not_mixed(tmp_path: Path) -> None:
    _write(tmp_path)
    write_shard(tmp_path, "shard-00009", _shard(0, 3), {**FACTS, "model_version": "other"})
    with pytest.raises(InvalidRequestError, match="different models"):
        ShardReader.open_folders(tmp_path)


def test_no_shards_and_rows_outside_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="collect activations first"):
        ShardReader.open_folders(tmp_path)
    n = _write(tmp_path)
    with pytest.raises(InvalidRequestError, match="outside"):
        ShardReader.open_folders(tmp_path).read(0, n + 1)


def test_values_that_are_not_finite_cannot_be_written() -> None:
    with pytest.raises(InvalidRequestError, match="NaN"):
        item_probes(np.full((2, D), np.inf, np.float32), np.ones(2, np.int32))


def test_the_fingerprint_tells_other_data(tmp_path: Path) -> None:
    _write(tmp_path / "a")
    _write(tmp_path / "b", (300, 1, 450, 250))
    a, again, b = (ShardReader.open_folders(tmp_path / name).fingerprint for name in ("a", "a", "b"))
    assert a == again != b


@pytest.mark.parametrize("buffer_rows", [128, 300, 10_000])
@pytest.mark.parametrize("batch_size", [1, 50, 64, 128])
def test_an_epoch_gives_every_row_once(tmp_path: Path, batch_size: int, buffer_rows: int) -> None:
    n = _write(tmp_path)
    batches = ShuffledBatches(ShardReader.open_folders(tmp_path), batch_size, buffer_rows, seed=3)
    seen = list(batches.epoch(0))
    assert len(seen) == batches.per_epoch
    assert {len(batch) for batch in seen[:-1]} <= {batch_size}
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)[:, 0]), np.arange(n))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    rows = ArrayRows(np.arange(2_000, dtype=np.float32)[:, None])

    def order(seed: int, epoch: int) -> list[float]:
        batches = ShuffledBatches(rows, 100, 512, seed).epoch(epoch)
        return [float(row[0]) for batch in batches for row in batch]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_a_buffer_mixes_rows_from_all_over() -> None:
    n = 20_000
    rows = ArrayRows(np.arange(n, dtype=np.float32)[:, None])
    first = next(ShuffledBatches(rows, 512, 4_096, 0).epoch(0))[:, 0]
    assert abs(first.mean() / n - 0.5) < 0.1
    assert abs(np.corrcoef(np.arange(512), first)[0, 1]) < 0.15


@pytest.mark.parametrize("buffer_rows", [64, 256, 4_096])
def test_any_batch_can_be_found_again_from_its_number(buffer_rows: int) -> None:
    rows = ArrayRows(np.arange(1_000, dtype=np.float32)[:, None])
    batches = ShuffledBatches(rows, 60, buffer_rows, seed=1)
    steps = 3 * batches.per_epoch
    whole = list(batches.from_step(0, steps))
    assert len(whole) == steps
    for step in (0, 1, 5, 16, 17, 18, 40, steps - 1, steps):
        resumed = list(batches.from_step(step, steps))
        assert len(resumed) == steps - step
        for expected, got in zip(whole[step:], resumed, strict=True):
            np.testing.assert_array_equal(expected, got)


def test_reading_is_in_small_pieces_and_resuming_skips_what_was_read() -> None:
    rows = Recorded(ArrayRows(np.zeros((10_000, 2), np.float32)))
    batches = ShuffledBatches(rows, 100, 1_024, seed=1)
    assert sum(map(len, batches.epoch(0))) == 10_000
    assert (rows.largest, rows.total) == (64, 10_000)
    rows.total = 0
    assert sum(map(len, batches.epoch(0, first=95))) == 500
    assert rows.total <= 1_024


def test_the_buffer_never_holds_more_than_it_may() -> None:
    rows = Recorded(ArrayRows(np.zeros((10_000, 2), np.float32)))
    stream = ShuffledBatches(rows, 100, 1_024, seed=1).epoch(0)
    given = 0
    for batch in stream:
        given += len(batch)
        assert rows.total - given <= 1_024 + 100


def test_normalisation_is_exact_far_from_the_origin_and_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = (1_000 + 0.01 * rng.normal(size=(1_000, D))).astype(np.float32)
    x[500:] += 3.0
    monkeypatch.setattr("recsae.sae.batches.chunks.__defaults__", (37,))
    measured = measure_normalisation(ArrayRows(x))
    exact = x.astype(np.float64)
    assert measured.scale == pytest.approx(float(np.sqrt(exact.var(axis=0).sum())), rel=1e-9)
    np.testing.assert_allclose(measured.mean, exact.mean(axis=0), rtol=1e-7)
    assert measured.mean_norm == pytest.approx(float(np.linalg.norm(exact, axis=1).mean()))
    normalised = measured.apply(x)
    assert float(np.square(normalised).sum(axis=1).mean()) == pytest.approx(1.0, abs=1e-3)


def test_a_sample_spreads_over_all_rows() -> None:
    rows = ArrayRows(np.arange(10_000, dtype=np.float32)[:, None])
    sample = evenly_spaced(rows, 1_000)[:, 0]
    assert 900 <= len(sample) <= 1_000
    assert (sample.min(), sample.max()) == (0, 9_999)
    assert len(evenly_spaced(rows, 20_000)) == 10_000
