"""Every family of the table: its graphs, seeds, causality, padding; and what is particular to one."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from recsae.datasets.splits import leave_one_out
from recsae.errors import NotFoundError
from recsae.recommenders.conformance import verify_behaviour
from recsae.recommenders.families.comirec import Comirec, ComirecConfig
from recsae.recommenders.families.family import EpochReport
from recsae.recommenders.families.gru4rec import Gru4rec, Gru4recConfig
from recsae.recommenders.families.next_item import NextItemNetwork, as_initialised
from recsae.recommenders.families.sasrec import Sasrec, SasrecConfig
from recsae.recommenders.families.sequence import export_network
from recsae.recommenders.families.table import FAMILIES, family
from recsae.recommenders.inputs import made_up_inputs
from recsae.recommenders.runtime import OnnxRecommender
from recsae.recommenders.synthetic import tiny_dataset, tiny_family_bundle
from recsae.recommenders.training import TrainingConfig, backward_softmax, train_network

NAMES = [one.name for one in FAMILIES]
N_ITEMS, LENGTH = 40, 10
SMALL: dict[str, TrainingConfig[Any]] = {
    "sasrec": SasrecConfig(max_history=LENGTH, dim=16, epochs=1),
    "gru4rec": Gru4recConfig(max_history=LENGTH, dim=16, hidden=24, epochs=1),
    "comirec": ComirecConfig(max_history=LENGTH, dim=16, interests=3, epochs=1),
}


@pytest.fixture(scope="module", params=NAMES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OnnxRecommender:
    return OnnxRecommender(tiny_family_bundle(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module", params=list(SMALL))
def network(request: pytest.FixtureRequest) -> NextItemNetwork:
    made: NextItemNetwork = as_initialised(lambda: SMALL[request.param].network(N_ITEMS), seed=3)
    return made


def histories(count: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, LENGTH + 1, size=count)
    items = random.integers(1, N_ITEMS + 1, size=(count, LENGTH))
    return torch.from_numpy(np.where(np.arange(LENGTH) < lengths[:, None], items, 0))


def test_a_family_keeps_the_promises_serving_relies_on_and_batches_change_no_bit(served: OnnxRecommender) -> None:
    assert verify_behaviour(served) == ()


def test_seeds_decide_the_weights(served: OnnxRecommender, tmp_path: Path) -> None:
    name = served.bundle.description.family
    same, other = (OnnxRecommender(tiny_family_bundle(name, tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    inputs = made_up_inputs(served.bundle, 4)
    expected = served.embed(inputs).activation
    assert same.embed(inputs).activation.tobytes() == expected.tobytes()
    assert np.abs(other.embed(inputs).activation - expected).max() > 1e-3


def test_an_unknown_family_is_refused_with_the_list_of_those_there_are() -> None:
    with pytest.raises(NotFoundError, match=r"'svd'.*sasrec, gru4rec, comirec"):
        family("svd")


def test_the_newest_position_is_the_last_one_of_all_positions(network: NextItemNetwork) -> None:
    given = histories(20)
    with torch.no_grad():
        for every, newest in zip(network.every_hook(given), network.newest_of_every_hook(given), strict=True):
            at = (given > 0).sum(1) - 1
            torch.testing.assert_close(newest, every[torch.arange(20), at], rtol=0, atol=1e-6)


def test_every_position_is_the_newest_of_its_prefix(network: NextItemNetwork) -> None:
    given = histories(1, seed=4)
    length = int((given > 0).sum())
    assert length > 3
    prefixes = torch.where(torch.arange(LENGTH) <= torch.arange(length)[:, None], given, 0)
    with torch.no_grad():
        torch.testing.assert_close(network(given)[0, :length], network.last(prefixes), rtol=0, atol=1e-6)


def test_padding_changes_nothing(network: NextItemNetwork) -> None:
    given = torch.tensor([[5, 9, 2]])
    padded = torch.nn.functional.pad(given, (0, LENGTH - 3))
    with torch.no_grad():
        torch.testing.assert_close(network.last(padded), network.last(given), rtol=0, atol=1e-6)
        torch.testing.assert_close(network(padded)[:, :3], network(given), rtol=0, atol=1e-6)


def test_order_of_the_history_matters(network: NextItemNetwork) -> None:
    with torch.no_grad():
        forth, back = network.last(torch.tensor([[5, 9, 2]])), network.last(torch.tensor([[2, 9, 5]]))
    assert (forth - back).abs().max() > 1e-5


@pytest.fixture(scope="module", params=list(SMALL))
def trainings(request: pytest.FixtureRequest) -> list[NextItemNetwork]:
    """The same training twice, and one from another seed."""
    data = tiny_dataset()
    split = leave_one_out(data.histories)
    return [
        train_network(split, data.items.count, replace(SMALL[request.param], seed=seed)).model for seed in (0, 0, 1)
    ]


def test_equal_seeds_train_to_equal_weights(trainings: list[NextItemNetwork]) -> None:
    first, again, other = (one.state_dict() for one in trainings)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["items.weight"], other["items.weight"])


def test_training_moves_every_weight(trainings: list[NextItemNetwork]) -> None:
    trained = trainings[0]
    kind = next(one for name, one in SMALL.items() if name == trained.family)
    start = as_initialised(lambda: kind.network(N_ITEMS), seed=0).state_dict()
    unmoved = [name for name, value in trained.state_dict().items() if torch.equal(value, start[name])]
    assert unmoved == []


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "comirec"])
def test_a_family_reports_each_epoch_and_tells_its_validation_figures(name: str) -> None:
    data, reports = tiny_dataset(), list[EpochReport]()
    model = family(name).train(data, leave_one_out(data.histories), seed=0, epochs=1, progress=reports.append)
    assert [(one.epoch, one.epochs) for one in reports] == [(1, 1)]
    assert model.metrics["valid_ndcg@10"] == round(reports[0].ndcg_at_10, 4)


def test_sasrec_of_two_blocks_shows_what_the_first_one_passes_on() -> None:
    network = as_initialised(lambda: Sasrec(SasrecConfig(max_history=LENGTH, dim=16).shape(N_ITEMS)), seed=0)
    given = histories(3)
    with torch.no_grad():
        output, first = network.every_hook(given)
        torch.testing.assert_close(output, network.norm(network.blocks[1](first)), rtol=0, atol=1e-6)
    assert [(hook.name, hook.steerable) for hook in network.hooks] == [("sequence", True), ("block_0", False)]


def test_sasrec_of_one_block_has_one_hook() -> None:
    shape = SasrecConfig(max_history=LENGTH, dim=16, blocks=1).shape(N_ITEMS)
    assert [hook.name for hook in Sasrec(shape).hooks] == ["sequence"]


def test_gru4rec_is_a_gated_recurrent_unit_step_by_step() -> None:
    network = as_initialised(lambda: SMALL["gru4rec"].network(N_ITEMS), seed=0)
    assert isinstance(network, Gru4rec)
    weights = {name: value.detach().numpy() for name, value in network.gru.named_parameters()}
    state = np.zeros(24, np.float32)
    for item in (3, 8, 1):
        vector = network.items.weight[item].detach().numpy()
        mine = weights["weight_ih_l0"] @ vector + weights["bias_ih_l0"]
        past = weights["weight_hh_l0"] @ state + weights["bias_hh_l0"]
        reset, update = _sigmoid(mine[:48] + past[:48]).reshape(2, 24)
        state = (1 - update) * np.tanh(mine[48:] + reset * past[48:]) + update * state
    expected = network.dense.weight.detach().numpy() @ state + network.dense.bias.detach().numpy()
    with torch.no_grad():
        found = network.last(torch.tensor([[3, 8, 1, 0, 0]])).numpy()[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(1) / (np.float32(1) + np.exp(-values, dtype=np.float32))


@pytest.fixture(scope="module")
def comirec() -> Comirec:
    network = as_initialised(lambda: SMALL["comirec"].network(N_ITEMS), seed=0)
    assert isinstance(network, Comirec)
    with torch.no_grad():  # small weights as initialised make all interests nearly one
        for values in network.parameters():
            values.add_(torch.randn(values.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    return network


def test_comirec_scores_an_item_by_the_interest_that_suits_it_best(comirec: Comirec, tmp_path: Path) -> None:
    served = OnnxRecommender(export_network(comirec, tiny_dataset().items, tmp_path, "several"))
    given = histories(5).numpy()
    interests = served.embed(given).activation
    assert interests.shape == (5, 3, 16)
    vectors, bias = (values.detach().numpy() for values in (comirec.items.weight, comirec.item_bias))
    expected = np.max(interests @ vectors.T, axis=1) + bias
    ranked = served.rank(interests, k=N_ITEMS)
    assert (np.sort(ranked.items, axis=1) == np.arange(1, N_ITEMS + 1)).all()
    np.testing.assert_allclose(ranked.scores, np.take_along_axis(expected, ranked.items, 1), rtol=1e-5, atol=1e-4)
    best = np.argmax(interests @ vectors.T, axis=1)
    assert len(np.unique(best)) == 3  # no interest alone would have given these scores


def test_comirec_learns_from_the_score_it_ranks_by(comirec: Comirec) -> None:
    given = histories(6)
    targets = torch.where(given > 0, given.roll(1, 0).clamp(min=1), 0)
    learning = copy.deepcopy(comirec)
    learnt = backward_softmax(learning, given, targets, logits_at_once=N_ITEMS * 3 * 5)
    with torch.no_grad():
        scores = comirec.scores(comirec(given))[targets > 0][:, 1:]
    loss = torch.nn.functional.cross_entropy(scores, targets[targets > 0] - 1, reduction="sum")
    assert learnt == pytest.approx(float(loss), rel=1e-5)
