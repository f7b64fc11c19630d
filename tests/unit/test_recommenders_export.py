"""Export of any torch trunk and head: inputs by name, several hooks, pairs, and the comparison that guards it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsae.errors import FailedPreconditionError
from recsae.recommenders.bundle import HEAD, TRUNK, TRUNK_POSITIONS, ModelBundle
from recsae.recommenders.description import AttributeInput, BundleDescription, Hook, Inputs
from recsae.recommenders.export import DotProduct, Parts, write_bundle
from recsae.recommenders.heads import interest_head_graph
from recsae.recommenders.made_up_feed import made_up_feed
from recsae.recommenders.synthetic import numbered_items
from recsae.recommenders.torch_check import check_against_torch

N_ITEMS, DIM, LENGTH, INTERESTS = 12, 6, 5, 3
ITEMS = numbered_items(N_ITEMS)
READS = Inputs(
    user=True,
    attributes=(AttributeInput("group", values=("a", "b")), AttributeInput("age", "number", default=30.0)),
    empty_history=True,
)


class Pairs(nn.Module):
    """A made CTR trunk: everything it can read goes into the activation; a pass-through tensor beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(N_ITEMS + 1, DIM, padding_idx=0)
        self.users, self.groups = nn.Embedding(5, DIM), nn.Embedding(3, DIM)

    def forward(
        self, history: Tensor, user: Tensor, group: Tensor, age: Tensor, candidate: Tensor
    ) -> tuple[Tensor, Tensor]:
        context = self.items(history).sum(1) + self.users(user) + self.groups(group) + 0.01 * age[:, None]
        return context * self.items(candidate), age * 2


class PairsAtEveryPosition(nn.Module):
    """The same with each item as the candidate of those before it."""

    def __init__(self, pairs: Pairs) -> None:
        super().__init__()
        self.pairs = pairs

    def forward(self, history: Tensor, user: Tensor, group: Tensor, age: Tensor) -> Tensor:
        vectors = self.pairs.items(history)
        before = vectors.cumsum(1) - vectors
        others = self.pairs.users(user) + self.pairs.groups(group) + 0.01 * age[:, None]
        made: Tensor = (before + others[:, None, :]) * vectors
        return made


class PairHead(nn.Module):
    """One score of an activation and its pass-through tensor."""

    def forward(self, activation: Tensor, doubled: Tensor) -> Tensor:
        return torch.tanh(activation).sum(1) + doubled


def pair_bundle(out: Path) -> ModelBundle:
    torch.manual_seed(0)
    pairs = Pairs()
    description = BundleDescription(
        "pairs", "made", LENGTH, N_ITEMS, "opaque", (Hook("pair", "user", DIM, rows="pair"),),
        passthrough=("doubled",), inputs=READS, n_users=4,
    )  # fmt: skip
    parts = Parts(pairs, PairHead(), PairsAtEveryPosition(pairs))
    return write_bundle(parts, description, ITEMS, out, user_ids=("u1", "u2", "u3", "u4"))


def run(bundle: ModelBundle, file: str, feed: dict[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
    return list(onnxruntime.InferenceSession(str(bundle.folder / file)).run(None, feed))


def test_a_pair_model_with_users_and_attributes_is_exported_whole(tmp_path: Path) -> None:
    bundle = pair_bundle(tmp_path)
    assert bundle.user_ids == ("u1", "u2", "u3", "u4")
    feed = dict(made_up_feed(bundle.description, 3, np.random.default_rng(1)))
    assert list(feed) == ["history", "user", "attribute.group", "attribute.age", "candidate"]
    activation, doubled = run(bundle, TRUNK, feed)
    assert activation.shape == (3, DIM)
    (score,) = run(bundle, HEAD, {"activation": activation, "doubled": doubled})
    np.testing.assert_allclose(score, np.tanh(activation).sum(1) + 2 * feed["attribute.age"], rtol=1e-5)


class Means(nn.Module):
    """Three interests: scaled means of the item vectors so far, at one position or at all; a second hook beside it."""

    def __init__(self, every: bool, wrong: float = 0.0) -> None:
        super().__init__()
        self.items = nn.Embedding(N_ITEMS + 1, DIM)
        nn.init.normal_(self.items.weight, generator=torch.Generator().manual_seed(0))
        self.every, self.wrong = every, wrong

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        real = (history > 0).to(torch.float32)
        sums = (self.items(history) * real[:, :, None]).cumsum(1)
        means = sums / real.cumsum(1).clamp(min=1)[:, :, None] + self.wrong
        rows = means[:, :, None, :] * torch.tensor([1.0, -1.0, 0.5])[:, None]
        if not self.every:
            newest = (real.sum(1).to(torch.int64) - 1).clamp(min=0)
            rows = rows.gather(1, newest[:, None, None, None].expand(-1, 1, INTERESTS, DIM)).squeeze(1)
        return rows, rows * 2


def interest_bundle(out: Path, wrong: float = 0.0) -> ModelBundle:
    hooks = tuple(
        Hook(name, "user", DIM, steerable=name == "first", rows="interest", interests=INTERESTS)
        for name in ("first", "second")
    )
    vectors = np.random.default_rng(0).normal(size=(N_ITEMS + 1, DIM)).astype(np.float32)
    bias = np.linspace(-1, 1, N_ITEMS + 1, dtype=np.float32)
    description = BundleDescription("several", "made", LENGTH, N_ITEMS, "opaque", hooks)
    parts = Parts(Means(every=False), interest_head_graph(vectors, bias, INTERESTS), Means(every=True, wrong=wrong))
    return write_bundle(parts, description, ITEMS, out)


def test_several_hooks_of_several_interests_stand_under_their_own_names(tmp_path: Path) -> None:
    bundle = interest_bundle(tmp_path)
    session = onnxruntime.InferenceSession(str(bundle.folder / TRUNK_POSITIONS))
    assert [one.name for one in session.get_outputs()] == ["activations", "activations.second"]
    history = np.array([[3, 4, 0, 0, 0]])
    first, second = run(bundle, TRUNK_POSITIONS, {"history": history})
    assert first.shape == (1, LENGTH, INTERESTS, DIM)
    np.testing.assert_array_equal(second, first * 2)
    assert not first[0, 2:].any()
    np.testing.assert_allclose(run(bundle, TRUNK, {"history": history})[0][0], first[0, 1], rtol=1e-6)


@pytest.mark.parametrize("candidates", [[], [1, 5, 9]])
def test_the_interest_that_suits_an_item_best_gives_its_score(tmp_path: Path, candidates: list[int]) -> None:
    bundle = interest_bundle(tmp_path)
    vectors = np.random.default_rng(0).normal(size=(N_ITEMS + 1, DIM)).astype(np.float32)
    activation = np.random.default_rng(1).normal(size=(4, INTERESTS, DIM)).astype(np.float32)
    feed = {
        "activation": activation,
        "exclude": np.full((4, 1), 5),
        "candidates": np.array([candidates] * 4, dtype=np.int64).reshape(4, -1),
        "k": np.array([N_ITEMS]),
    }
    items, scores = run(bundle, HEAD, feed)
    wanted = (activation @ vectors.T).max(axis=1) + np.linspace(-1, 1, N_ITEMS + 1)
    allowed = [item for item in candidates or range(1, N_ITEMS + 1) if item != 5]
    for row in range(4):
        assert items[row, : len(allowed)].tolist() == sorted(allowed, key=lambda item: -wanted[row, item])
        np.testing.assert_allclose(scores[row, : len(allowed)], wanted[row, items[row, : len(allowed)]], rtol=1e-4)
        assert (scores[row, len(allowed) :] == -np.inf).all()


def test_positions_that_are_not_what_the_trunk_gives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FailedPreconditionError, match="several differs from torch"):
        interest_bundle(tmp_path, wrong=1e-2)


class FirstItem(nn.Module):
    """The vector of the oldest item, changed by `change`."""

    def __init__(self, change: Callable[[Tensor], Tensor] = lambda rows: rows) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.items, self.change = nn.Embedding(N_ITEMS + 1, DIM), change

    def forward(self, history: Tensor) -> Tensor:
        return self.change(self.items(history[:, 0]))


@pytest.mark.parametrize("change", [lambda rows: rows * 1.001, lambda rows: rows * torch.nan])
def test_a_graph_that_differs_from_torch_is_refused(tmp_path: Path, change: Callable[[Tensor], Tensor]) -> None:
    vectors, bias = np.zeros((N_ITEMS + 1, DIM), np.float32), np.zeros(N_ITEMS + 1, np.float32)
    hook = Hook("only", "user", DIM, all_positions=False)
    description = BundleDescription("one", "made", LENGTH, N_ITEMS, "dot_product", (hook,))
    bundle = write_bundle(Parts(FirstItem(), DotProduct(vectors, bias)), description, ITEMS, tmp_path)
    with pytest.raises(FailedPreconditionError, match="one differs from torch"):
        check_against_torch(bundle, FirstItem(change))
