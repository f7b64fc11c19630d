"""The fidelity benchmark on made data: which rows it trains on and ranks with, its cache, and its last line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import base_models, fidelity
from benchmarks.base_models import Base, TrainedBase, base_model
from benchmarks.fidelity_rows import export_activations, target_rows

from recsae.concepts.splits import UserPart, split_users
from recsae.datasets.planted import make_planted
from recsae.recommenders.families.sasrec import SasrecConfig
from recsae.recommenders.full_ranking import target_ranks
from recsae.sae.shards import ShardReader

CONFIG = SasrecConfig(max_history=20, dim=16, blocks=1, epochs=4, batch=16, learning_rate=1e-2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with made data under the name of a real data set; the longest histories need two windows."""
    folder = tmp_path_factory.mktemp("data")
    dataset = make_planted(seed=4, n_users=120, n_items=60, n_concepts=4, mean_length=18).dataset
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    histories = dataset.histories
    for user, item, time in zip(histories.users, histories.items, histories.timestamps, strict=True):
        rows.append(f"{user}\t{item}\t{time:.0f}")
    (folder / "ml-1m").mkdir()
    (folder / "ml-1m" / "ml-1m.inter").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(autouse=True)
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_models, "BASES", {"ml-1m-d64": Base("ml-1m", (CONFIG,))})
    monkeypatch.setattr(fidelity, "BASES", base_models.BASES)


@pytest.fixture
def base(data: Path, tmp_path: Path) -> TrainedBase:
    return base_model("ml-1m-d64", data, tmp_path / "base", replace(CONFIG, epochs=1))


def test_rows_are_what_the_network_says_at_each_position(base: TrainedBase, tmp_path: Path) -> None:
    activations = export_activations(base, tmp_path)
    histories = base.split.before_test
    parts = split_users(base.dataset.users.ids)
    seen = 0
    for folder, of_sae in ((activations.sae, True), (activations.held_out, False)):
        for shard in ShardReader.open_folders(folder).shards():
            assert ((parts[shard.user] == UserPart.SAE) == of_sae).all()
            assert (shard.item == histories.items[histories.offsets[shard.user] + shard.position]).all()
            seen += len(shard.x)
    assert seen == len(histories.items)
    shard = next(iter(ShardReader.open_folders(activations.held_out).shards()))
    newest = np.flatnonzero(np.append(np.diff(shard.user) != 0, True))[0]
    history = histories.of(int(shard.user[newest]))[-CONFIG.max_history :].astype(np.int64)
    expected = base.model(torch.from_numpy(history)[None])[0, -1].detach().numpy()
    np.testing.assert_allclose(shard.x[newest], expected, atol=1e-5)


def test_targets_rank_as_the_network_ranks_them(base: TrainedBase, tmp_path: Path) -> None:
    targets = target_rows(base, export_activations(base, tmp_path))
    ranks = fidelity.ranker(base, targets)(targets.x).ranks
    users = np.unique(targets.user)
    expected = {
        "test": target_ranks(base.model, base.split.before_test, base.split.test, users),
        "valid": target_ranks(base.model, base.split.train, base.split.valid, users),
    }
    for at, user in enumerate(users):
        rows = np.flatnonzero(targets.user == user)
        assert targets.item[rows].tolist() == [base.split.valid[user], base.split.test[user]]
        found = np.array([expected["valid"][at], expected["test"][at]])
        # A window that ends one item later reads one item less: only short histories are the same to the bit.
        if base.split.before_test.lengths[user] <= CONFIG.max_history:
            np.testing.assert_allclose(ranks[rows], found, atol=1)


def test_a_network_is_trained_once_for_the_same_data_and_settings(data: Path, tmp_path: Path) -> None:
    first = base_model("ml-1m-d64", data, tmp_path, replace(CONFIG, epochs=1))
    again = base_model("ml-1m-d64", data, tmp_path, replace(CONFIG, epochs=1, threads=2))
    assert again.record == first.record
    assert torch.equal(again.model.items.weight, first.model.items.weight)
    assert base_model("ml-1m-d64", data, tmp_path, replace(CONFIG, epochs=2)).record["epochs"] == 2


def test_the_last_line_holds_the_scores_of_each_data_set_and_k(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(data), "--cache", str(tmp_path), "--only", "ml-1m", "amazon-beauty"]
    monkeypatch.setattr(base_models, "BASES", base_models.BASES | {"amazon-beauty-d64": Base("amazon-beauty", ())})
    monkeypatch.setattr(fidelity, "BASES", base_models.BASES)
    monkeypatch.setattr("sys.argv", ["fidelity", *arguments, "--k", "2", "8", "--epochs", "400", "--threads", "1"])
    fidelity.main()
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("amazon-beauty is skipped") for line in lines)
    result = json.loads(lines[-1])
    assert result["bench"] == "fidelity"
    assert set(result) == {"bench", "ml-1m"}
    assert result["ml-1m"]["k2"]["sparse"]
    assert not result["ml-1m"]["k8"]["sparse"]
    for k in ("k2", "k8"):
        scores = result["ml-1m"][k]
        low, high = scores["ci"]
        assert low <= scores["ndcg_kept"] <= high
        assert scores["diff"] == pytest.approx(scores["ndcg_kept"] - scores["adaptive_pca"], abs=2e-4)
        assert scores["diff_ci"][0] <= scores["diff"] <= scores["diff_ci"][1]
        assert 0 < scores["fvu"] < 1
    assert result["ml-1m"]["k8"]["fvu"] < result["ml-1m"]["k2"]["fvu"]


def test_without_data_each_data_set_is_skipped_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["fidelity", "--only", "ml-1m"])
    fidelity.main()
    first, last = capsys.readouterr().out.splitlines()
    assert first == "ml-1m is skipped: DATA= is not given; README.md says how to get the data"
    assert json.loads(last) == {"bench": "fidelity"}
