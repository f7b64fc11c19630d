"""What a catalogue's size costs a recommender: `python -m benchmarks.catalogue [ITEMS ...]`.

An untrained SASRec (d = 64) of 3,706, 50,000 and 1,000,000 items is exported, published and loaded, each in a process
of its own: seconds, memory, and processor time per user of `OnnxRecommender.embed` and `rank` (20 items of all, the
history left out) in batches of 1, 8 and 32 on one thread. Then the head whole and in blocks, interleaved in one
process, at the sizes between which the export decides. The last line is the result as JSON.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import this_machine

SIZES = (3_706, 50_000, 1_000_000)
HEADS = (50_000, 150_000, 400_000, 1_000_000)
BATCHES = (1, 8, 32)
DIM, K, ROUNDS = 64, 20, 5
# Items scored in a round, so that large catalogues do not take minutes.
_SCORED = 8_000_000


def export(n_items: int, root: Path) -> dict[str, Any]:
    """Exports and publishes the model; seconds, peak MiB, version, MiB on disk."""
    from recsae.datasets.schema import ItemTable
    from recsae.recommenders.bundle import publish_bundle
    from recsae.recommenders.families.sasrec import SasrecShape, untrained_sasrec
    from recsae.recommenders.families.sequence import export_network
    from recsae.store.artifacts import ArtifactStore

    ids = tuple(f"item-{number:07d}" for number in range(1, n_items + 1))
    items = ItemTable(ids, tuple(f"Title of item {number}" for number in range(1, n_items + 1)), {})
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as bundle:
        export_network(untrained_sasrec(SasrecShape(n_items=n_items, dim=DIM), 0), items, Path(bundle), "catalogue")
        exported = time.perf_counter() - begin
        size = sum(path.stat().st_size for path in Path(bundle).iterdir())
        version = publish_bundle(ArtifactStore(str(root)), Path(bundle))
    done = time.perf_counter() - begin
    return {"export_s": exported, "publish_s": done - exported, "export_peak_mib": peak_mib(), "version": version} | {
        "disk_mib": size / (1 << 20)
    }


def serve(n_items: int, root: Path, version: str) -> dict[str, Any]:
    """Loads the model as the recommender does and ranks with it."""
    from recsae.recommenders.invariance import batch_invariance
    from recsae.store.artifacts import ArtifactStore
    from recsae_recommender.loading import load_recommender
    from recsae_recommender.rows import most_together

    before = resident_mib()
    begin = time.perf_counter()
    recommender = load_recommender(ArtifactStore(str(root)), "catalogue", version, 1)
    recommender.bundle.index_of(["item-0000001"])  # the first request makes the index
    load = time.perf_counter() - begin
    loaded, load_peak = resident_mib() - before, peak_mib()
    begin = time.perf_counter()
    assert batch_invariance(recommender).holds
    warm_up = time.perf_counter() - begin
    random = np.random.default_rng(1)
    embed: dict[int, float] = {}
    rank: dict[int, float] = {}
    for batch in BATCHES:
        histories = recommender.pad([random.integers(1, n_items + 1, 50) for _ in range(batch)])
        rows = recommender.embed(histories).activation
        embed[batch] = _us(lambda histories=histories: recommender.embed(histories), batch, n_items)
        rank[batch] = _us(
            lambda rows=rows, histories=histories: recommender.rank(rows, k=K, exclude=histories), batch, n_items
        )
    return {
        "load_s": load, "warm_up_s": warm_up, "loaded_mib": loaded, "load_peak_mib": load_peak, "peak_mib": peak_mib(),
        "embed_us": embed, "rank_us": rank, "most_together": most_together(recommender),
    }  # fmt: skip


def heads(n_items: int, root: Path) -> dict[str, Any]:
    """Microseconds per user of the head whole and in blocks; AssertionError unless they agree to the bit."""
    import onnx

    from recsae.recommenders.blocked_head import blocked_head_graph
    from recsae.recommenders.graph import Graph
    from recsae.recommenders.heads import head_graph

    random = np.random.default_rng(1)
    vectors, bias = (random.standard_normal(shape, dtype=np.float32) for shape in ((n_items + 1, DIM), n_items + 1))
    graphs = {}
    for name, make in (("whole", head_graph), ("blocks", blocked_head_graph)):
        path = root / f"{name}-{n_items}.onnx"
        onnx.save(make(vectors, bias), path)
        graphs[name] = Graph(path, 1)
    found: dict[str, dict[int, float]] = {name: {} for name in graphs}
    for batch in BATCHES:
        feed: dict[str, NDArray[Any]] = {
            "activation": random.standard_normal((batch, DIM), dtype=np.float32),
            "exclude": random.integers(0, n_items + 1, (batch, 50)),
            "candidates": np.zeros((batch, 0), np.int64),
            "k": np.array([K]),
        }
        answers = {name: graph.run(["items", "scores"], feed, batch) for name, graph in graphs.items()}
        assert all(
            one.tobytes() == other.tobytes() for one, other in zip(answers["whole"], answers["blocks"], strict=True)
        )
        rounds: dict[str, list[float]] = {name: [] for name in graphs}
        for _ in range(ROUNDS):
            for name, graph in graphs.items():
                rounds[name].append(
                    _us(
                        lambda graph=graph, feed=feed: graph.run(["scores"], feed, len(feed["exclude"])),
                        batch,
                        n_items,
                        1,
                    )
                )
        for name, times in rounds.items():
            found[name][batch] = statistics.median(times)
    return found


def peak_mib() -> float:
    """Most memory this process had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mib() -> float:
    """Memory this process has resident."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / (1 << 20)


def _us(call: Any, batch: int, n_items: int, rounds: int = ROUNDS) -> float:
    """Microseconds of processor time per user, the median over rounds."""
    calls = max(1, min(200, _SCORED // (n_items * batch)))
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        for _ in range(calls):
            call()
        times.append((time.process_time() - begin) / calls / batch * 1e6)
    return statistics.median(times)


def apart(what: str, *arguments: object) -> dict[str, Any]:
    """What one of the measurements above gives in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.catalogue", what, *(str(argument) for argument in arguments)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    measured: dict[str, Any] = json.loads(said.splitlines()[-1])
    return measured


def main(sizes: tuple[int, ...] = SIZES, head_sizes: tuple[int, ...] = HEADS) -> None:
    """Prints the tables, then the JSON line."""
    write = sys.stdout.write
    write(f"{this_machine().processor}; one thread, d = {DIM}, processor time per user in us, memory in MiB\n")
    line = "{:>9}" + " {:>8}" * 12 + "\n"
    parts = ("export s", "its peak", "on disk", "load s", "loaded", "warm-up s", "peak", "together")
    write(line.format("items", *parts, *(f"rank @{batch}" for batch in BATCHES), f"embed @{BATCHES[-1]}"))
    catalogues: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        for size in sizes:
            made = apart("export", size, root)
            served = apart("serve", size, root, made["version"])
            numbers = (
                made["export_s"], made["export_peak_mib"], made["disk_mib"], served["load_s"], served["loaded_mib"],
                served["warm_up_s"], served["peak_mib"], served["most_together"], *served["rank_us"].values(),
                served["embed_us"][str(BATCHES[-1])],
            )  # fmt: skip
            write(line.format(size, *(f"{number:.1f}" for number in numbers)))
            catalogues[str(size)] = _rounded(made | served)
        write("{:>9} {:>6} {:>9} {:>9} {:>6}\n".format("items", "batch", "whole", "blocks", "ratio"))
        by_head: dict[str, Any] = {}
        for size in head_sizes:
            found = by_head[str(size)] = _rounded(apart("heads", size, root))
            for batch, whole in found["whole"].items():
                blocks = found["blocks"][batch]
                write(f"{size:>9} {batch:>6} {whole:>9} {blocks:>9} {blocks / whole:>6.2f}\n")
    write(json.dumps({"bench": "catalogue", "catalogues": catalogues, "heads_us": by_head}) + "\n")


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _rounded(value) if isinstance(value, dict) else round(value, 1) if isinstance(value, float) else value
        for name, value in values.items()
    }


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["export", items, folder]:
            sys.stdout.write(json.dumps(export(int(items), Path(folder))) + "\n")
        case ["serve", items, folder, version]:
            sys.stdout.write(json.dumps(serve(int(items), Path(folder), version)) + "\n")
        case ["heads", items, folder]:
            sys.stdout.write(json.dumps(heads(int(items), Path(folder))) + "\n")
        case []:
            main()
        case items:
            main(tuple(int(size) for size in items), ())
