"""RecBole is handed our data in our order, its settings are chosen on validation, and published figures say how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.recbole.__main__ import _chosen
from benchmarks.recbole.material import prepare
from benchmarks.recbole.measures import COUNTINGS
from benchmarks.recbole.settings import MODELS

from recsae.datasets.atomic import load_atomic

FOLDER = Path(__file__).parents[2] / "benchmarks" / "recbole"
HEADER = "user_id:token\titem_id:token\ttimestamp:float"
# Within a minute of each other, where float32 seconds are all alike, and two at the same second.
TIMES = ["u\tb\t881250949", "v\ta\t881250950", "u\ta\t881250948", "u\td\t881250960", "u\tc\t881250960"]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    (tmp_path / "tiny.inter").write_text("\n".join([HEADER, *TIMES]) + "\n")
    (tmp_path / "tiny.item").write_text("item_id:token\tmovie_title:token_seq\na\tA film\nb\tB\nc\tC\nd\tD\n")
    prepare(tmp_path, tmp_path / "scratch")
    return tmp_path / "scratch" / "prepared"


def test_recbole_gets_the_order_of_our_histories_as_timestamps(prepared: Path) -> None:
    lines = (prepared / "prepared.inter").read_text().splitlines()
    assert lines == [HEADER, "u\ta\t0", "u\tb\t1", "u\td\t2", "u\tc\t3", "v\ta\t0"]


def test_what_recbole_gets_reads_back_as_the_same_histories_and_titles(prepared: Path) -> None:
    before, after = load_atomic(prepared.parents[1], "tiny").dataset, load_atomic(prepared).dataset
    np.testing.assert_array_equal(before.histories.items, after.histories.items)
    np.testing.assert_array_equal(before.histories.offsets, after.histories.offsets)
    assert before.items == after.items


def record(valid: float, test: float, rate: float) -> dict[str, Any]:
    counted = {"kept_epoch": 2, "valid": {"ndcg10": valid, "hr10": valid}, "test": {"ndcg10": test, "hr10": test}}
    facts = {"settings": {"learning_rate": rate}, "epochs": 3, "stopped_by": "patience", "recbole_reports": {}}
    cost = {"seconds": 1.0, "cpu_seconds": 1.0, "machine": "a machine", "date": "2026-01-01"}
    return {**facts, **cost, **dict.fromkeys(COUNTINGS, counted)}


def test_settings_are_chosen_by_validation_not_by_test() -> None:
    entry = _chosen("BPR", [record(0.1, 0.9, 0.001), record(0.2, 0.3, 0.005)])
    for counting in COUNTINGS:
        assert entry[counting]["settings"] == {"learning_rate": 0.005}
        assert entry[counting]["ndcg10"] == 0.3
    assert [one["valid_ndcg10"]["excluding_consumed"] for one in entry["search"]] == [0.1, 0.2]


def test_the_figures_kept_are_those_of_the_settings_best_on_validation() -> None:
    document = json.loads((FOLDER / "ml-100k.json").read_bytes())
    assert (document["users"], document["items"]) == (943, 1682)
    for name, entry in document["models"].items():
        assert document["families"][MODELS[name].family]["ndcg10"] == entry["excluding_consumed"]["ndcg10"]
        for counting in COUNTINGS:
            found = entry[counting]
            assert 0 < found["ndcg10"] < found["hr10"] < 1
            best = max(one["valid_ndcg10"][counting] for one in entry["search"])
            assert found["valid_ndcg10"] == best
            assert found["settings"] in [
                one["settings"] for one in entry["search"] if one["valid_ndcg10"][counting] == best
            ]


def test_every_published_figure_names_its_source_and_its_protocol() -> None:
    document = json.loads((FOLDER / "published.json").read_bytes())
    for name, entry in document["models"].items():
        assert f"/{name}-ml-1m" in entry["source"]
        assert entry["protocol"] in document["protocols"]
        assert entry["test"]
