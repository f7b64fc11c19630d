"""The benchmark of catalogue sizes, on a small one: it measures what is served, and the two heads agree."""

from __future__ import annotations

from pathlib import Path

from benchmarks.catalogue import BATCHES, export, heads, serve

N_ITEMS = 300


def test_a_catalogue_is_exported_loaded_and_ranked(tmp_path: Path) -> None:
    made = export(N_ITEMS, tmp_path)
    served = serve(N_ITEMS, tmp_path, made["version"])
    assert made["disk_mib"] > 0.1
    assert served["load_s"] > 0
    assert list(served["rank_us"]) == list(served["embed_us"]) == list(BATCHES)
    assert all(time > 0 for time in (*served["rank_us"].values(), *served["embed_us"].values()))


def test_both_heads_are_timed(tmp_path: Path) -> None:
    found = heads(N_ITEMS, tmp_path)
    assert all(found[head][batch] > 0 for head in ("whole", "blocks") for batch in BATCHES)
