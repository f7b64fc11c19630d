"""BPR-MF and LightGCN: vectors of known users and items."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recsae.datasets.planted import make_planted
from recsae.datasets.splits import Split, leave_one_out
from recsae.errors import InvalidRequestError
from recsae.recommenders.evaluation import UserFacts, evaluate
from recsae.recommenders.families.bpr import BPR, BprFamily
from recsae.recommenders.families.family import EpochReport
from recsae.recommenders.families.lightgcn import LIGHTGCN, LightGcn, LightGcnFamily, normalised_adjacency, smooth
from recsae.recommenders.families.user_item_vectors import UserItemVectors, bpr_loss, penalty
from recsae.recommenders.runtime import OnnxRecommender

PLANTED = make_planted(seed=3, n_users=200, n_items=120, n_concepts=6, mean_length=30).dataset
SPLIT = leave_one_out(PLANTED.histories)
IDS = tuple(f"pseudonym-{number}" for number in range(200))
Kind = BprFamily | LightGcnFamily
SILENT: Callable[[EpochReport], None] = lambda report: None  # noqa: E731


@pytest.fixture(scope="module", params=[BPR, LIGHTGCN], ids=lambda one: one.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture(scope="module")
def trained(kind: Kind) -> UserItemVectors:
    return kind.train(PLANTED, SPLIT, seed=0, epochs=20, progress=SILENT)


@pytest.fixture(scope="module")
def served(trained: UserItemVectors, tmp_path_factory: pytest.TempPathFactory) -> OnnxRecommender:
    out = tmp_path_factory.mktemp(trained.family)
    return OnnxRecommender(trained.export(PLANTED, out, trained.family, user_ids=IDS))


def test_a_trained_model_served_by_onnx_beats_popularity_clearly(served: OnnxRecommender) -> None:
    # 200 test users: the standard error of each hit ratio is at most 0.035.
    quality = evaluate(served, SPLIT, facts=UserFacts(IDS))
    assert quality.model["hr@10"] > quality.popularity["hr@10"] + 0.08


def test_a_user_is_found_by_the_id_passed_in_and_its_history_is_not_read(
    trained: UserItemVectors, served: OnnxRecommender
) -> None:
    inputs = served.inputs([[1, 2], [], [5]], ["pseudonym-7", "pseudonym-0", "pseudonym-7"])
    found = served.embed(inputs).activation
    np.testing.assert_array_equal(found, trained.users[[7, 0, 7]].numpy())
    assert not served.bundle.description.inputs.history


def test_scores_are_dot_products_with_the_item_vectors(trained: UserItemVectors, served: OnnxRecommender) -> None:
    ranked = served.recommend(served.inputs([[]], ["pseudonym-3"]), k=120)
    expected = trained.users[3] @ trained.items.T + trained.bias
    np.testing.assert_allclose(ranked.scores[0], expected[ranked.items[0]], rtol=1e-5, atol=1e-5)


def test_an_unknown_user_is_the_mean_of_those_it_learnt_from(trained: UserItemVectors, tmp_path: Path) -> None:
    known = torch.arange(200) >= 20
    some = replace(trained, known=known)
    served = OnnxRecommender(some.export(PLANTED, tmp_path, "some", user_ids=IDS))
    mean = trained.users[20:].mean(dim=0).numpy()
    found = served.embed(served.inputs([[], [], []], ["nobody", "", "pseudonym-4"])).activation
    np.testing.assert_allclose(found, np.stack([mean] * 3), rtol=0, atol=1e-6)
    learnt = served.embed(served.inputs([[]], ["pseudonym-20"])).activation
    np.testing.assert_array_equal(learnt[0], trained.users[20].numpy())


def test_ids_that_do_not_fit_the_users_are_refused(trained: UserItemVectors, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="knows 200 users and 1 ids"):
        trained.export(PLANTED, tmp_path, "short", user_ids=["one"])


def test_equal_seeds_train_to_equal_vectors(kind: Kind) -> None:
    first, again, other = (kind.train(PLANTED, SPLIT, seed=seed, epochs=1, progress=SILENT) for seed in (4, 4, 5))
    assert torch.equal(first.users, again.users)
    assert torch.equal(first.items, again.items)
    assert not torch.equal(first.users, other.users)


def test_epochs_asked_for_are_reported_and_the_figures_are_of_the_one_kept(kind: Kind) -> None:
    reports: list[EpochReport] = []
    model = kind.train(PLANTED, SPLIT, seed=0, epochs=2, progress=reports.append)
    assert [(report.epoch, report.epochs) for report in reports] == [(1, 2), (2, 2)]
    kept = reports[int(model.metrics["epoch"]) - 1]
    assert model.metrics["valid_ndcg@10"] == round(kept.ndcg_at_10, 4)


def test_an_untrained_model_has_no_figures_and_learnt_nothing(kind: Kind, tmp_path: Path) -> None:
    control = kind.untrained(PLANTED, SPLIT, seed=0)
    served = OnnxRecommender(control.export(PLANTED, tmp_path, "control", user_ids=IDS))
    assert control.metrics == {}
    trained = kind.train(PLANTED, SPLIT, seed=0, epochs=1, progress=SILENT)
    assert not torch.equal(control.items, trained.items)
    assert served.n_items == 120


def test_bpr_loss_and_penalty_are_those_of_the_paper_row_by_row() -> None:
    random = torch.Generator().manual_seed(0)
    users, positives, negatives = (torch.randn(5, 3, generator=random) for _ in range(3))
    margins = torch.randn(5, generator=random)
    expected = [
        -torch.log(torch.sigmoid(user @ positive - user @ negative + margin))
        for user, positive, negative, margin in zip(users, positives, negatives, margins, strict=True)
    ]
    torch.testing.assert_close(bpr_loss(users, positives, negatives, margins), torch.stack(expected).mean())
    squares = (users**2).sum() + (positives**2).sum()
    torch.testing.assert_close(penalty(users, positives), squares / 5)


def dense_adjacency(split: Split, n_items: int) -> torch.Tensor:
    n_users = split.train.n_users
    took = torch.zeros(n_users, n_items)
    for user in range(n_users):
        took[user, torch.from_numpy(split.train.of(user).astype(np.int64)) - 1] = 1.0
    users = took.sum(1, keepdim=True).clamp(min=1) ** -0.5
    items = took.sum(0, keepdim=True).clamp(min=1) ** -0.5
    whole = torch.zeros(n_users + n_items, n_users + n_items)
    whole[:n_users, n_users:] = took * users * items
    return whole + whole.T


def test_lightgcn_walks_the_normalised_graph() -> None:
    dense = dense_adjacency(SPLIT, 120)
    torch.testing.assert_close(normalised_adjacency(SPLIT.train, 120).to_dense(), dense)
    table = torch.randn(320, 4, generator=torch.Generator().manual_seed(0))
    expected = (table + dense @ table + dense @ (dense @ table)) / 3
    torch.testing.assert_close(smooth(table, normalised_adjacency(SPLIT.train, 120), 2), expected)


def test_lightgcn_gradients_go_back_along_the_graph() -> None:
    torch.manual_seed(0)
    model = LightGcn(SPLIT.train, 120, dim=3, layers=2)
    users, items = model.vectors()
    wanted = torch.randn(320, 3)
    (torch.cat([users, items[1:]]) * wanted).sum().backward()  # type: ignore[no-untyped-call]
    dense = dense_adjacency(SPLIT, 120)
    start = model.start.detach().requires_grad_()
    ((start + dense @ start + dense @ (dense @ start)) / 3 * wanted).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(model.start.grad, start.grad)
    assert torch.equal(items[0], torch.zeros(3))


def test_lightgcn_starts_are_the_rows_that_smoothing_begins_with() -> None:
    model = LightGcn(SPLIT.train, 120, dim=3, layers=0)
    users, items = model.vectors()
    some_users, some_items = torch.tensor([0, 199]), torch.tensor([1, 120])
    for found, expected in zip(
        model.starts(some_users, some_items), (users[some_users], items[some_items]), strict=True
    ):
        assert torch.equal(found, expected)
