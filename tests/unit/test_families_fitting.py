"""The epochs: which weights are kept, when it stops, what it refuses; ranks against one user at a time."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsae.datasets.planted import make_planted
from recsae.datasets.schema import Histories
from recsae.datasets.splits import Split, leave_one_out
from recsae.errors import InvalidRequestError
from recsae.recommenders.families.family import EpochReport
from recsae.recommenders.families.fitting import Fit, Schedule, fit, seeded, valid_ranks

N_ITEMS, N_USERS = 30, 20
HISTORIES = make_planted(seed=2, n_users=N_USERS, n_items=N_ITEMS, n_concepts=3, mean_length=8).dataset.histories
SPLIT = leave_one_out(HISTORIES)


class Counter(nn.Module):
    """Its one weight counts the epochs: the gradient of its loss is always -1, so it grows by the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def losses(self, random: np.random.Generator) -> Iterator[Tensor]:
        yield -self.weight


def right_for(share: float) -> Tensor:
    """Scores that put the validation item of the first `share` of all users on top, and of the others last."""
    scores = torch.zeros(N_USERS, N_ITEMS + 1)
    right = int(share * N_USERS)
    scores[torch.arange(N_USERS), torch.from_numpy(SPLIT.valid.astype(np.int64))] = -1.0
    scores[torch.arange(right), torch.from_numpy(SPLIT.valid[:right].astype(np.int64))] = 1.0
    return scores


def fit_with(shares: list[float], patience: int = 99, epochs: int = 0, every: int = 1) -> tuple[Counter, Fit]:
    """A training whose validated epochs rank right for these shares of the users."""
    model, left = Counter(), list(shares)

    def scores(histories: Histories, users: NDArray[np.int64]) -> Tensor:
        return right_for(left.pop(0))[torch.from_numpy(users)]

    schedule = Schedule(epochs or len(shares), 0.1, patience, every=every)
    return model, fit(model, model.losses, scores, SPLIT, schedule)


def weight_after(epoch: int, epochs: int) -> float:
    """Adam moves by its rate where the gradient is constant; the rate falls linearly from 0.1."""
    return sum(0.1 * (1 - done / epochs) for done in range(epoch))


def test_the_weights_kept_are_of_the_last_epoch_within_one_standard_error_of_the_best() -> None:
    model, fitted = fit_with([0.3, 0.8, 0.75, 0.4])  # the standard error at 0.75 of 20 users is 0.097
    assert fitted.kept == 2
    assert model.weight.item() == pytest.approx(weight_after(3, 4), rel=1e-4)
    assert fitted.metrics["epoch"] == 3.0
    assert fitted.metrics["valid_hr@10"] == pytest.approx(0.75)
    assert not model.training


def test_a_schedule_ends_early_when_nothing_gets_better() -> None:
    _, fitted = fit_with([0.5, 0.4, 0.4, 0.4, 0.4, 0.4], patience=3)
    assert [report.epoch for report in fitted.reports] == [1, 2, 3, 4]


def test_epochs_between_validations_are_trained_and_the_last_one_is_validated() -> None:
    model, fitted = fit_with([0.1, 0.2, 0.9], epochs=5, every=2)
    assert [report.epoch for report in fitted.reports] == [2, 4, 5]
    assert model.weight.item() == pytest.approx(weight_after(5, 5), rel=1e-4)


def test_progress_hears_of_each_epoch_and_can_end_the_training() -> None:
    class CancelledError(Exception):
        pass

    def cancel(report: EpochReport) -> None:
        raise CancelledError(str(report.epoch))

    model = Counter()
    with pytest.raises(CancelledError, match="1"):
        fit(model, model.losses, lambda histories, users: right_for(1.0), SPLIT, Schedule(3, 0.1, 3), cancel)


@pytest.mark.parametrize(
    ("split", "epochs", "what"),
    [
        (Split(SPLIT.train, np.zeros_like(SPLIT.valid), SPLIT.test, SPLIT.before_test), 3, "nobody"),
        (SPLIT, 0, "epochs is 0"),
    ],
)
def test_what_cannot_be_trained_is_refused(split: Split, epochs: int, what: str) -> None:
    model = Counter()
    with pytest.raises(InvalidRequestError, match=what):
        fit(model, model.losses, lambda histories, users: right_for(1.0), split, Schedule(epochs, 0.1, 3))


def test_an_epoch_without_a_batch_is_refused() -> None:
    model = Counter()
    with pytest.raises(InvalidRequestError, match="nothing to learn from"):
        fit(model, lambda random: iter(()), lambda histories, users: right_for(1.0), SPLIT, Schedule(2, 0.1, 3))


def test_users_ranked_bounds_how_many_validate_an_epoch() -> None:
    model, ranked = Counter(), list[int]()

    def scores(histories: Histories, users: NDArray[np.int64]) -> Tensor:
        ranked.append(len(users))
        return right_for(1.0)[torch.from_numpy(users)]

    fit(model, model.losses, scores, SPLIT, Schedule(1, 0.1, 3, users_ranked=6))
    assert ranked == [6]


def test_ranks_leave_out_what_a_user_took_and_padding() -> None:
    table = torch.randn(N_USERS, N_ITEMS + 1, generator=torch.Generator().manual_seed(0))
    table[:, 0] = 9.0
    look_up: Callable[[Histories, NDArray[np.int64]], Tensor] = lambda _, users: table[torch.from_numpy(users)].clone()  # noqa: E731
    found = valid_ranks(nn.Identity(), look_up, SPLIT.train, SPLIT.valid, np.arange(3, N_USERS))
    for user in range(3, N_USERS):
        target, took = int(SPLIT.valid[user]), set(SPLIT.train.of(user).tolist())
        better = [
            item for item in range(1, N_ITEMS + 1) if item not in took and table[user, item] >= table[user, target]
        ]
        assert found[user - 3] == len(better)


def test_a_seed_leaves_torch_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(1):
        assert torch.equal(torch.rand(3), first)
