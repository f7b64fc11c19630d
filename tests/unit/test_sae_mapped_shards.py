"""Picking rows out of many shards: memory holds what was picked, not what there is."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np

from recsae.concepts.sampling import sample_rows
from recsae.sae.shards import ActivationShard, ShardReader, item_probes

D, ROWS, SHARDS = 64, 4_000, 6


def reader(folder: Path) -> ShardReader:
    """Row i of the whole holds the value i everywhere; each user has ten rows."""
    files = []
    for number in range(SHARDS):
        rows = np.arange(number * ROWS, (number + 1) * ROWS, dtype=np.int32)
        x = np.repeat(rows[:, None].astype(np.float32), D, axis=1)
        files.append(folder / f"{number}.safetensors")
        files[-1].write_bytes(ActivationShard(x, rows // 10, rows % 10, rows + 1).to_bytes())
    files.append(folder / "items.safetensors")
    files[-1].write_bytes(item_probes(np.zeros((3, D), np.float32), np.arange(1, 4, dtype=np.int32)).to_bytes())
    return ShardReader(files)


def test_a_sample_of_mapped_shards_is_that_of_shards_in_memory(tmp_path: Path) -> None:
    rows = reader(tmp_path)
    wanted = np.arange(ROWS * SHARDS // 10 + 1) < ROWS * SHARDS // 10
    mapped = sample_rows(rows.mapped(), wanted, cap=500)
    whole = sample_rows(list(rows.shards()), wanted, cap=500)
    assert np.array_equal(mapped.x[:, 0], mapped.item - 1)
    for name in ("x", "user", "position", "item"):
        assert np.array_equal(getattr(mapped, name), getattr(whole, name))


def test_a_sample_of_mapped_shards_takes_memory_for_the_sample_only(tmp_path: Path) -> None:
    rows = reader(tmp_path)
    wanted = np.arange(ROWS * SHARDS // 10 + 1) < ROWS * SHARDS // 10
    tracemalloc.start()
    try:
        sample = sample_rows(rows.mapped(), wanted, cap=500)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # All columns but `x` are read whole; `x` of all rows would be 6 MB.
    assert len(sample) == 500
    assert peak < rows.n * D * 4 / 3
