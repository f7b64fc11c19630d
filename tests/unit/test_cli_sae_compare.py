"""`recsae sae export | match | stability` as people and scripts use them: folders, versions, tables, JSON, refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.cli import app as cli
from recsae.cli.output import console, errors
from recsae.cli.workspace import Workspace
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.shards import ActivationShard, write_shard
from recsae.sae.weights import SaeWeights

D, WIDTH, K, ROWS = 16, 24, 4, 1500
Array = NDArray[np.float32]


class Outcome(NamedTuple):
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Recsae = Callable[..., Outcome]


@pytest.fixture
def recsae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Recsae:
    """The command through its entry point, in a workspace of the test's own."""
    monkeypatch.setattr(console, "width", 200)
    monkeypatch.setattr(errors, "width", 40)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["recsae", "--home", str(tmp_path / "workspace"), *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        code = end.value.code
        return Outcome(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


def directions(seed: int) -> Array:
    drawn = np.random.default_rng(seed).normal(size=(WIDTH, D))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def save_sae(folder: Path, rows: Array, config: dict[str, Any] | None = None) -> str:
    zeros = np.zeros(D, np.float32)
    weights = SaeWeights(rows, np.zeros(WIDTH, np.float32), rows, zeros, zeros)
    export_sae(weights, K, TrainingFacts(error_p99=0.5, mean_norm=1.0, config=config or {}), folder)
    return str(folder)


def save_shards(folder: Path, turned: Array | None = None, first_user: int = 0) -> str:
    """Rows that are sums of three of the known directions, in two shards; `turned` [D, D] by another base model."""
    rng = np.random.default_rng(1)
    clean = directions(0)[rng.integers(0, WIDTH, (ROWS, 3))].sum(axis=1)
    x = np.asarray(clean + 0.05 * rng.normal(size=(ROWS, D)), np.float32)
    x = x if turned is None else x @ turned
    user = (first_user + np.arange(ROWS)).astype(np.int32)
    for name, part in (("a", slice(0, 900)), ("b", slice(900, ROWS))):
        columns = user[part], np.zeros_like(user[part]), np.ones_like(user[part])
        write_shard(folder, name, ActivationShard(x[part], *columns), {"model": "tiny"})
    return str(folder)


def test_an_sae_matches_itself_in_another_order_by_version_and_by_folder(recsae: Recsae, tmp_path: Path) -> None:
    order = np.random.default_rng(2).permutation(WIDTH)
    save_sae(tmp_path / "old", directions(0))
    new = save_sae(tmp_path / "new", directions(0)[order])
    version = Workspace(tmp_path / "workspace").artifacts().publish("sae", tmp_path / "old", config={}, lineage={})
    shards = save_shards(tmp_path / "shards")
    done = recsae("sae", "match", version, new, "--activations", shards, "--json")
    assert done.code == 0
    assert done.json["rows"] == ROWS
    assert done.json["new"]["counts"]["stable"] == WIDTH
    assert [latent["partner"] for latent in done.json["new"]["latents"]] == order.tolist()
    assert done.json["old"]["sae"] == version
    assert done.json["false_match_rate"] < 0.05
    assert done.json["alignment_explained"] is None


def test_a_table_says_what_was_lost_and_what_came(recsae: Recsae, tmp_path: Path) -> None:
    rows = directions(0)
    rows[3] = directions(5)[3]
    old, new = save_sae(tmp_path / "old", directions(0)), save_sae(tmp_path / "new", rows)
    shown = recsae("sae", "match", old, new, "--activations", save_shards(tmp_path / "shards")).out
    assert f"{ROWS:,} probe rows" in shown
    for status in ("stable", "drifted", "split", "merged", "new", "lost", "silent"):
        assert status in shown
    assert "Matched by chance" in shown
    assert "1 of 1 old latents that are not stable" in shown


def test_another_base_model_is_aligned_over_the_same_histories(recsae: Recsae, tmp_path: Path) -> None:
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(D, D)))[0].astype(np.float32)
    old, new = save_sae(tmp_path / "old", directions(0)), save_sae(tmp_path / "new", directions(0) @ turn)
    before, after = save_shards(tmp_path / "before"), save_shards(tmp_path / "after", turn)
    command = ("sae", "match", old, new, "--activations", after, "--old-activations")
    found = recsae(*command, before, "--json").json
    assert found["alignment_explained"] > 0.999
    assert found["new"]["counts"]["stable"] == WIDTH
    assert "explains 100.0 % of the variance" in recsae(*command, before).out
    refused = recsae(*command, save_shards(tmp_path / "others", first_user=7))
    assert refused.code == 1
    assert "differ in user" in refused.err


def test_stability_is_reported_beside_chance(recsae: Recsae, tmp_path: Path) -> None:
    rows = directions(0)
    rows[:6] = directions(9)[:6]
    names = [
        save_sae(tmp_path / "s0", directions(0)),
        save_sae(tmp_path / "s1", directions(0)[::-1].copy()),
        save_sae(tmp_path / "s2", rows),
    ]
    shards = save_shards(tmp_path / "shards")
    found = recsae("sae", "stability", *names, "--activations", shards, "--rows", "1000", "--json").json
    assert found["rows"] == 1000
    assert [latent["stable"] for latent in found["latents"]] == [False] * 6 + [True] * (WIDTH - 6)
    assert found["stable"]["count"] == pytest.approx((WIDTH - 6) / WIDTH)
    assert found["chance"] == {"count": 0.0, "mass": 0.0}
    shown = recsae("sae", "stability", *names, "--activations", shards).out
    assert "in all of 2 other SAEs" in shown
    assert "75.0 %" in shown


def test_rows_are_read_from_the_work_folder_of_a_run_too(recsae: Recsae, tmp_path: Path) -> None:
    sae = save_sae(tmp_path / "sae", directions(0))
    save_shards(tmp_path / "run" / "collect")
    found = recsae("sae", "match", sae, sae, "--activations", str(tmp_path / "run"), "--json")
    assert found.json["rows"] == ROWS


def test_one_sae_alone_or_named_twice_is_refused(recsae: Recsae, tmp_path: Path) -> None:
    sae, shards = save_sae(tmp_path / "sae", directions(0)), save_shards(tmp_path / "shards")
    for names in ((sae,), (sae, sae)):
        refused = recsae("sae", "stability", *names, "--activations", shards)
        assert (refused.code, refused.out) == (1, "")
        assert "at least one other seed" in refused.err


@pytest.mark.parametrize("format", ["saelens", "safetensors", "onnx"])
def test_an_sae_is_exported_in_each_format(recsae: Recsae, tmp_path: Path, format: str) -> None:
    sae, out = save_sae(tmp_path / "sae", directions(0)), tmp_path / "out"
    done = recsae("sae", "export", sae, "--format", format, "--out", str(out), "--json")
    files = {
        "saelens": ["cfg.json", "sae_weights.safetensors"],
        "safetensors": ["sae.json", "sae.safetensors"],
        "onnx": ["encoder.onnx", "sae.json"],
    }[format]
    assert done.json == {"sae": sae, "format": format, "folder": str(out), "files": files}
    assert sorted(path.name for path in out.iterdir()) == files
    again = recsae("sae", "export", sae, "--format", format, "--out", str(out))
    assert again.code == 1
    assert "exists already" in again.err


def test_a_batchtopk_sae_without_its_threshold_is_not_exported_as_something_else(
    recsae: Recsae, tmp_path: Path
) -> None:
    sae = save_sae(tmp_path / "sae", directions(0), {"variant": "batchtopk"})
    facts = json.loads((tmp_path / "sae" / "sae.json").read_text())
    (tmp_path / "sae" / "sae.json").write_text(json.dumps({**facts, "threshold": None}))
    refused = recsae("sae", "export", sae, "--out", str(tmp_path / "out"))
    assert refused.code == 1
    assert "names no threshold" in refused.err
    (tmp_path / "sae" / "sae.json").write_text(json.dumps({**facts, "threshold": 0.25}))
    assert recsae("sae", "export", sae, "--out", str(tmp_path / "out")).code == 0
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["architecture"] == "jumprelu"


def test_names_that_are_no_sae_and_folders_without_shards_are_refused_with_what_there_is(
    recsae: Recsae, tmp_path: Path
) -> None:
    save_sae(tmp_path / "sae", directions(0))
    version = Workspace(tmp_path / "workspace").artifacts().publish("sae", tmp_path / "sae", config={}, lineage={})
    for name in ("nothing", "0123456789abcdef"):
        refused = recsae("sae", "export", name, "--out", str(tmp_path / "out"))
        assert refused.code == 1
        assert f"'{name}' is neither a folder nor an SAE" in refused.err
        assert version in refused.err
    (tmp_path / "empty").mkdir()
    assert "holds no SAE" in recsae("sae", "export", str(tmp_path / "empty"), "--out", str(tmp_path / "out")).err
    refused = recsae("sae", "match", version, version, "--activations", str(tmp_path / "empty"))
    assert (refused.code, refused.out) == (1, "")
    assert "holds no activation shards" in refused.err
