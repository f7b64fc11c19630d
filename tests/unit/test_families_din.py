"""DIN: pairs against the formula one at a time, what a pair may see, the bias that passes from trunk to head."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsae.datasets.planted import make_planted
from recsae.datasets.splits import leave_one_out
from recsae.recommenders.evaluation import evaluate
from recsae.recommenders.families import din
from recsae.recommenders.families.din import Din, DinShape, every_score, steps_between, steps_to_next
from recsae.recommenders.families.din_family import DIN, DinModel
from recsae.recommenders.families.family import EpochReport
from recsae.recommenders.full_ranking import newest_items
from recsae.recommenders.runtime import OnnxRecommender

PLANTED = make_planted(seed=3, n_users=200, n_items=120, n_concepts=6, mean_length=30).dataset
SPLIT = leave_one_out(PLANTED.histories)
LENGTH = DIN.config.max_history


def silent(report: EpochReport) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def trained() -> DinModel:
    return DIN.train(PLANTED, SPLIT, seed=0, epochs=6, progress=silent)


@pytest.fixture(scope="module")
def served(trained: DinModel, tmp_path_factory: pytest.TempPathFactory) -> OnnxRecommender:
    return OnnxRecommender(trained.export(PLANTED, tmp_path_factory.mktemp("din"), "din"))


@pytest.fixture(scope="module")
def small() -> Din:
    torch.manual_seed(0)
    network = Din(DinShape(n_items=9, dim=3, attention=2, hidden=(5, 4), max_history=6)).eval()
    for values in network.parameters():  # nothing zero, nothing small
        nn.init.normal_(values, std=0.5)
    with torch.no_grad():
        network.items.weight[0] = 0.0
    return network


def one_pair(network: Din, before: list[int], candidate: int) -> tuple[Tensor, Tensor, Tensor]:
    """Equation 3 of the paper, item by item: the two hidden layers and the score."""
    wanted, pooled = network.items.weight[candidate], torch.zeros(network.shape.dim)
    for place, item in enumerate(before):
        seen = network.items.weight[item]
        hidden = network.seen(seen) + network.wanted(wanted) + network.both @ (seen * wanted)
        hidden = hidden + network.steps_ago.weight[len(before) - place]
        pooled = pooled + (network.weight @ functional.relu(hidden)) * seen
    first = functional.relu(network.first(torch.cat([pooled, wanted, pooled * wanted])))
    second = functional.relu(network.second(first))
    return first, second, network.score(second)[0] + network.bias.weight[candidate, 0]


def test_every_position_is_the_pair_of_what_came_before_and_the_item(small: Din) -> None:
    items = [3, 7, 1, 9, 4]
    history = torch.tensor([[*items, 0]])
    with torch.no_grad():
        made = small.pairs(history, history[:, :, None], steps_between(6))
        scores = small.scores(made.last, made.bias)
        for place, candidate in enumerate(items):
            first, second, score = one_pair(small, items[:place], candidate)
            torch.testing.assert_close(made.before[0, place, 0], first)
            torch.testing.assert_close(made.last[0, place, 0], second)
            torch.testing.assert_close(scores[0, place, 0], score)


@pytest.mark.parametrize("before", [[], [5], [3, 7, 1, 9, 4, 2]])
def test_every_item_is_scored_by_the_formula(small: Din, before: list[int]) -> None:
    history = torch.tensor([[*before, *[0] * (6 - len(before))]])
    with torch.no_grad():
        found = every_score(small, history)[0]
        expected = torch.stack([one_pair(small, before, candidate)[2] for candidate in range(1, 10)])
    torch.testing.assert_close(found[1:], expected)


def test_pieces_change_no_score(small: Din, monkeypatch: pytest.MonkeyPatch) -> None:
    histories = torch.tensor([[1, 2, 0, 0, 0, 0], [3, 4, 5, 6, 7, 8], [0] * 6])
    with torch.no_grad():
        whole = every_score(small, histories)
        monkeypatch.setattr(din, "_PAIRS_AT_ONCE", 4)
        torch.testing.assert_close(every_score(small, histories), whole)


def test_steps_count_back_from_what_comes_next() -> None:
    assert steps_to_next(torch.tensor([[4, 5, 6, 0], [0, 0, 0, 0]])).tolist() == [[[3, 2, 1, 0]], [[0, 0, 0, 0]]]
    assert steps_between(3).tolist() == [[[0, 0, 0], [1, 0, 0], [2, 1, 0]]]


def test_a_trained_model_served_by_onnx_beats_popularity_clearly(served: OnnxRecommender) -> None:
    # 200 test users: the standard error of each hit ratio is at most 0.035.
    quality = evaluate(served, SPLIT)
    assert quality.model["hr@10"] > quality.popularity["hr@10"] + 0.1


def test_the_head_with_the_bias_passed_on_gives_torchs_full_score(trained: DinModel, served: OnnxRecommender) -> None:
    histories = newest_items(SPLIT.before_test, np.arange(5), LENGTH)
    histories[4] = 0
    ranked = served.recommend(histories, k=120)
    with torch.no_grad():
        expected = every_score(trained.network, torch.from_numpy(histories)).numpy()
        bias = trained.network.bias.weight[1:, 0]
    np.testing.assert_allclose(ranked.scores, np.take_along_axis(expected, ranked.items, 1), rtol=1e-5, atol=1e-4)
    assert (np.sort(ranked.items, axis=1) == np.arange(1, 121)).all()
    assert bias.std() > 0.01  # what crosses the cut matters
    assert served.bundle.description.passthrough == ("candidate_bias",)


def test_the_read_only_hook_is_the_layer_before(trained: DinModel, served: OnnxRecommender) -> None:
    assert [(hook.name, hook.dim, hook.steerable, hook.rows) for hook in served.hooks] == [
        ("hidden_2", 64, True, "pair"),
        ("hidden_1", 128, False, "pair"),
    ]
    histories, candidates = newest_items(SPLIT.before_test, np.arange(4), LENGTH), np.array([1, 60, 7, 120])
    last = served.embed(histories, candidates=candidates).activation
    before = served.embed(histories, candidates=candidates, hook="hidden_1").activation
    with torch.no_grad():
        expected = functional.relu(trained.network.second(torch.from_numpy(before))).numpy()
    np.testing.assert_allclose(last, expected, rtol=0, atol=1e-5)


def test_without_a_history_a_candidate_stands_alone(trained: DinModel, served: OnnxRecommender) -> None:
    nothing = np.zeros((2, LENGTH), np.int64)
    found = served.embed(nothing, candidates=np.array([5, 9])).activation
    _, second, _ = one_pair(trained.network, [], 5)
    np.testing.assert_allclose(found[0], second.detach().numpy(), rtol=0, atol=1e-5)
    assert np.isfinite(found).all()
    assert not np.array_equal(found[0], found[1])


def test_equal_seeds_train_to_equal_weights() -> None:
    first, again, other = (
        DIN.train(PLANTED, SPLIT, seed=seed, epochs=1, progress=silent).network.state_dict() for seed in (4, 4, 5)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["items.weight"], other["items.weight"])


def test_training_moves_every_weight_and_tells_its_figures(trained: DinModel, tmp_path: Path) -> None:
    control = DIN.untrained(PLANTED, SPLIT, seed=0)
    learnt = dict(trained.network.named_parameters())
    assert [name for name, value in control.network.named_parameters() if torch.equal(value, learnt[name])] == []
    assert control.metrics == {}
    bundle = control.export(PLANTED, tmp_path, "control")
    assert bundle.description.metrics == {}
    assert trained.metrics["epoch"] in (2.0, 4.0, 6.0)
