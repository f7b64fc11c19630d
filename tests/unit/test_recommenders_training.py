"""Training on a made data set whose sequences can be learnt."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recsae.datasets.planted import make_planted
from recsae.datasets.splits import Split, leave_one_out
from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.recommenders.evaluation import evaluate
from recsae.recommenders.families.family import EpochReport
from recsae.recommenders.families.sasrec import Sasrec, SasrecConfig
from recsae.recommenders.families.sequence import export_network
from recsae.recommenders.runtime import OnnxRecommender
from recsae.recommenders.training import TrainedNetwork, train_network

PLANTED = make_planted(seed=3, n_users=200, n_items=120, n_concepts=6, mean_length=30).dataset
CONFIG = SasrecConfig(max_history=20, dim=32, blocks=1, epochs=6, batch=32, dropout=0.1, learning_rate=5e-3)


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(PLANTED.histories)


@pytest.fixture(scope="module")
def trained(split: Split) -> TrainedNetwork[Sasrec]:
    return train_network(split, PLANTED.items.count, CONFIG)


def test_trained_model_served_by_onnx_beats_popularity_clearly(
    split: Split, trained: TrainedNetwork[Sasrec], tmp_path: Path
) -> None:
    # 200 test users: the standard error of each hit ratio is at most 0.035; the gap found is above 0.2.
    bundle = export_network(trained.model, PLANTED.items, tmp_path, "planted", trained.metrics)
    quality = evaluate(OnnxRecommender(bundle), split)
    assert quality.users == 200
    assert quality.model["hr@10"] > quality.popularity["hr@10"] + 0.1
    assert quality.as_scores()["popularity_hr@10"] == quality.popularity["hr@10"]


def test_evaluation_of_a_sample_uses_that_many_users(
    split: Split, trained: TrainedNetwork[Sasrec], tmp_path: Path
) -> None:
    bundle = export_network(trained.model, PLANTED.items, tmp_path, "planted")
    assert evaluate(OnnxRecommender(bundle), split, max_users=70).users == 70


def test_same_seed_gives_the_same_weights(split: Split) -> None:
    short = SasrecConfig(max_history=20, dim=16, blocks=1, epochs=1)
    first, second = (train_network(split, PLANTED.items.count, short).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_kept_are_those_of_a_late_epoch_as_good_as_the_best(
    split: Split, trained: TrainedNetwork[Sasrec]
) -> None:
    best = max(report.ndcg_at_10 for report in trained.reports)
    kept = trained.reports[trained.kept_epoch - 1]
    assert kept.ndcg_at_10 > best - 0.5 / len(split.valid) ** 0.5  # gains lie in 0..1: the error is at most this
    assert trained.metrics["valid_ndcg@10"] == round(kept.ndcg_at_10, 4)


def test_training_stops_when_validation_no_longer_improves(split: Split) -> None:
    reports: list[EpochReport] = []
    config = SasrecConfig(max_history=20, dim=16, blocks=1, epochs=30, learning_rate=1e-12, patience=2)
    train_network(split, PLANTED.items.count, config, reports.append)
    best = max(range(len(reports)), key=lambda epoch: reports[epoch].ndcg_at_10)
    assert len(reports) - 1 - best == 2


def test_progress_can_end_the_training(split: Split) -> None:
    class CancelledError(Exception):
        pass

    def cancel(report: EpochReport) -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        train_network(split, PLANTED.items.count, CONFIG, cancel)


def test_histories_too_short_to_learn_from_are_refused() -> None:
    short = make_planted(seed=0, n_users=5, n_items=20, n_concepts=2).dataset.histories
    first_two = short.keep(short.timestamps < 2)
    with pytest.raises(InvalidRequestError, match="longer histories"):
        train_network(leave_one_out(first_two), 20, SasrecConfig())


def test_training_by_length_learns_as_much(split: Split, trained: TrainedNetwork[Sasrec]) -> None:
    sorted_batches = train_network(split, PLANTED.items.count, replace(CONFIG, by_length=True))
    # Two estimates over 200 users, each with a standard error below 0.035, and seen 0.003 apart.
    assert sorted_batches.metrics["valid_hr@10"] > trained.metrics["valid_hr@10"] - 0.1


def test_a_device_torch_does_not_know_is_refused(split: Split) -> None:
    with pytest.raises(InvalidRequestError, match="'gpu'"):
        train_network(split, PLANTED.items.count, replace(CONFIG, device="gpu"))
    with pytest.raises(InvalidRequestError, match="'meta'"):
        train_network(split, PLANTED.items.count, replace(CONFIG, device="meta"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_said_to_be_missing(split: Split) -> None:
    with pytest.raises(FailedPreconditionError, match="no GPU"):
        train_network(split, PLANTED.items.count, replace(CONFIG, device="cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_training_on_a_gpu_learns_as_much_and_returns_the_network_to_the_cpu(
    split: Split, trained: TrainedNetwork[Sasrec]
) -> None:
    on_gpu = train_network(split, PLANTED.items.count, replace(CONFIG, device="cuda"))
    assert on_gpu.model.item_bias.device.type == "cpu"
    assert on_gpu.metrics["valid_hr@10"] > trained.metrics["valid_hr@10"] - 0.1
