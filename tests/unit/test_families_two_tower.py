"""The two towers: attributes and history on one side, id and columns on the other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recsae.datasets.attributes import typed_rows
from recsae.datasets.planted import make_planted
from recsae.datasets.splits import leave_one_out
from recsae.recommenders.evaluation import UserFacts, evaluate
from recsae.recommenders.families.attributes import attributes_of
from recsae.recommenders.families.family import EpochReport
from recsae.recommenders.families.two_tower import TWO_TOWER, TwoTowerModel
from recsae.recommenders.full_ranking import newest_items
from recsae.recommenders.inputs import Attributes
from recsae.recommenders.runtime import OnnxRecommender

PLANTED = make_planted(seed=3, n_users=200, n_items=120, n_concepts=6, mean_length=30).dataset
SPLIT = leave_one_out(PLANTED.histories)
FACTS = UserFacts(attributes=typed_rows(PLANTED.users.columns, 200))
LENGTH = TWO_TOWER.config.max_history


def silent(report: EpochReport) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def trained() -> TwoTowerModel:
    return TWO_TOWER.train(PLANTED, SPLIT, seed=0, epochs=5, progress=silent)


@pytest.fixture(scope="module")
def served(trained: TwoTowerModel, tmp_path_factory: pytest.TempPathFactory) -> OnnxRecommender:
    return OnnxRecommender(trained.export(PLANTED, tmp_path_factory.mktemp("two_tower"), "two_tower"))


def test_a_trained_model_served_by_onnx_beats_popularity_clearly(served: OnnxRecommender) -> None:
    # 200 test users: the standard error of each hit ratio is at most 0.035.
    quality = evaluate(served, SPLIT, facts=FACTS)
    assert quality.model["hr@10"] > quality.popularity["hr@10"] + 0.1


def test_attributes_as_serving_sends_them_give_what_torch_gives(
    trained: TwoTowerModel, served: OnnxRecommender
) -> None:
    users, histories = np.arange(20), SPLIT.before_test
    found = served.embed(
        served.inputs([histories.of(user) for user in range(20)], (), FACTS.attributes[:20])
    ).activation
    values = [column[:20] for column in attributes_of(PLANTED.users, trained.inputs)]
    with torch.no_grad():
        items = trained.network.item_vectors()
        expected = trained.network(items, torch.from_numpy(newest_items(histories, users, LENGTH)), *values)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5)
    assert served.item_vectors is not None
    np.testing.assert_allclose(served.item_vectors, items.numpy(), rtol=0, atol=1e-6)


def test_every_position_is_the_tower_of_its_prefix(trained: TwoTowerModel) -> None:
    history = torch.zeros(1, LENGTH, dtype=torch.int64)
    history[0, :9] = torch.arange(11, 20)
    prefixes = torch.where(torch.arange(LENGTH) <= torch.arange(9)[:, None], history, 0)
    attributes = [torch.tensor([40.0]), torch.tensor([2])]
    with torch.no_grad():
        items = trained.network.item_vectors()
        every = trained.network.prefixes(items, history, *attributes)[0, :9]
        alone = trained.network(items, prefixes, *(one.expand(9) for one in attributes))
    torch.testing.assert_close(every, alone, rtol=0, atol=1e-5)


def test_somebody_new_is_answered_from_attributes_alone(served: OnnxRecommender) -> None:
    asked: list[Attributes] = [{"age": 18.0, "gender": "F"}, {"age": 70.0, "gender": "M"}, {"gender": "never seen"}, {}]
    made = served.inputs([[]] * 4, (), asked)
    ranked = served.recommend(made, k=10)
    found = served.embed(made).activation
    assert np.isfinite(found).all()
    assert np.isfinite(ranked.scores).all()
    assert np.abs(found[0] - found[1]).max() > 1e-3
    np.testing.assert_array_equal(found[2], found[3])


def test_data_without_attributes_or_columns_train_on_histories_alone(tmp_path: Path) -> None:
    bare = replace(PLANTED.pseudonymised(b"key" * 11), items=replace(PLANTED.items, columns={}))
    model = TWO_TOWER.train(bare, SPLIT, seed=0, epochs=1, progress=silent)
    bundle = model.export(bare, tmp_path, "bare")
    assert bundle.description.inputs.history_alone
    assert np.isfinite(OnnxRecommender(bundle).embed(np.zeros((1, LENGTH), np.int64)).activation).all()


def test_equal_seeds_train_to_equal_weights() -> None:
    first, again, other = (
        TWO_TOWER.train(PLANTED, SPLIT, seed=seed, epochs=1, progress=silent).network.state_dict() for seed in (4, 4, 5)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["ids.weight"], other["ids.weight"])


def test_training_moves_every_weight(trained: TwoTowerModel) -> None:
    start = TWO_TOWER.untrained(PLANTED, SPLIT, seed=0).network
    learnt = dict(trained.network.named_parameters())
    assert [name for name, value in start.named_parameters() if torch.equal(value, learnt[name])] == []
