"""Evidence of one number of activations, timed, with peak memory: `python -m benchmarks.evidence_point POINT FOLDER`.

A process of its own per point. Every shard's sums are written and read back, as the steps of a refresh do it: reading
them is the map, merging the files the reduce. A run over one small shard comes first, so that imports are not timed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.growth_point import AnonymousMemory
from recsae.concepts.evidence_files import load_sums, save_sums
from recsae.concepts.evidence_reading import RowFacts, read_shard
from recsae.concepts.evidence_sums import EvidenceSums
from recsae.concepts.features import log_item_counts
from recsae.concepts.splits import UserPart
from recsae.datasets.schema import Histories
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.shards import MappedShard, ShardReader

LENGTH, N_ITEMS = 100, 5_000
_MIB = 1 << 20
# Of each five shards: what their users are for, as in a refresh.
_PARTS = (UserPart.SAE, UserPart.CONSTRUCTION, UserPart.SAE, UserPart.VERIFICATION, UserPart.SAE)


@dataclass(frozen=True)
class Point:
    """`rows` activations in shards of `shard_rows`, each the whole histories of some users."""

    rows: int
    shard_rows: int


@dataclass(frozen=True)
class Measured:
    """Seconds by the clock and of the processor for all shards and for merging them, peak memory, and what was kept.

    `map_mib` and `merge_mib` are the highest anonymous memory, 0 where the system does not tell, beyond the
    `process_mib` that were there before: the interpreter and the histories. `shard_mib` is the largest
    file set of one shard, `merged_mib` that of all, `buckets` occupied ones.
    """

    map_seconds: float
    map_cpu_seconds: float
    merge_seconds: float
    merge_cpu_seconds: float
    process_mib: float
    map_mib: float
    merge_mib: float
    shard_mib: float
    merged_mib: float
    buckets: int
    firings: int


def histories(rows: int) -> Histories:
    """Of users with 100 interactions each, items by a power law; the same for the same `rows`."""
    users = rows // LENGTH
    weights = np.arange(1, N_ITEMS + 1) ** -0.8
    items = np.random.default_rng(0).choice(N_ITEMS, rows, p=weights / weights.sum()).astype(np.int32) + 1
    offsets = np.arange(users + 1, dtype=np.int64) * LENGTH
    return Histories(offsets, items, np.arange(rows, dtype=np.float64))


def measure_point(point: Point, folder: Path) -> Measured:
    """Reads and merges the shards of `folder`, whose SAE lies in `folder/sae`."""
    sae = SparseAutoencoder.load(folder / "sae", "0" * 16)
    known = histories(point.rows)
    part_of_shard = np.array(_PARTS, np.int8)[np.arange(-(-point.rows // point.shard_rows)) % len(_PARTS)]
    parts = np.append(np.repeat(part_of_shard, point.shard_rows // LENGTH)[: known.n_users], np.int8(UserPart.SAE))
    facts = RowFacts(parts, known, log_item_counts(known, N_ITEMS))
    files = sorted((folder / "shards").glob("*.safetensors"))
    read_shard(_first(_opened(files[0]), 1_000), sae, facts)
    with AnonymousMemory() as before:
        pass
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        out = Path(scratch)
        begun, worked = time.perf_counter(), time.process_time()
        with AnonymousMemory() as mapping:
            for file in files:
                save_sums(read_shard(_opened(file), sae, facts), out / file.stem)
        halfway, half_worked = time.perf_counter(), time.process_time()
        with AnonymousMemory() as merging:
            merged = EvidenceSums.merge(_saved(out))
        ended, all_worked = time.perf_counter(), time.process_time()
        largest = max(_size(each) for each in out.iterdir())
        save_sums(merged, out / "merged")
        return Measured(
            map_seconds=halfway - begun,
            map_cpu_seconds=half_worked - worked,
            merge_seconds=ended - halfway,
            merge_cpu_seconds=all_worked - half_worked,
            process_mib=before.peak_bytes / _MIB,
            map_mib=(mapping.peak_bytes - before.peak_bytes) / _MIB,
            merge_mib=(merging.peak_bytes - before.peak_bytes) / _MIB,
            shard_mib=largest / _MIB,
            merged_mib=_size(out / "merged") / _MIB,
            buckets=len(merged.construction.key) + len(merged.others.key),
            firings=int(merged.probe_counts.sum() + merged.verification_fired.sum()),
        )


def _opened(file: Path) -> MappedShard:
    (shard,) = ShardReader.open_files([file]).mapped()
    return shard


def _saved(folder: Path) -> Iterator[EvidenceSums]:
    for each in sorted(folder.iterdir()):
        yield load_sums(each)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _first(shard: MappedShard, rows: int) -> MappedShard:
    return MappedShard(shard.x[:rows], shard.user[:rows], shard.position[:rows], shard.item[:rows])


if __name__ == "__main__":
    result = measure_point(Point(**json.loads(sys.argv[1])), Path(sys.argv[2]))
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
