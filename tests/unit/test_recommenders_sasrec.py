"""The network: causality, the short way to the last position, and its loss in slices."""

import copy

import pytest
import torch
from torch.nn import functional

from recsae.recommenders.families.sasrec import Sasrec, SasrecShape, untrained_sasrec
from recsae.recommenders.training import backward_softmax

SHAPE = SasrecShape(n_items=30, max_history=8, dim=12, blocks=2, heads=2)


@pytest.fixture(scope="module")
def model() -> Sasrec:
    return untrained_sasrec(SHAPE, seed=1)


def history(*items: int) -> torch.Tensor:
    return torch.tensor([[*items, *[0] * (SHAPE.max_history - len(items))]])


def test_later_items_do_not_change_earlier_positions(model: Sasrec) -> None:
    short, long = model(history(3, 9, 4)), model(history(3, 9, 4, 27, 13))
    torch.testing.assert_close(short[:, :3], long[:, :3], rtol=0, atol=1e-6)
    assert (short[:, 3] - long[:, 3]).abs().max() > 1e-3


@pytest.mark.parametrize("items", [(5,), (5, 7, 5), (1, 2, 3, 4, 5, 6, 7, 8)])
def test_last_equals_the_full_network_at_the_newest_item(model: Sasrec, items: tuple[int, ...]) -> None:
    every = model(history(*items))
    torch.testing.assert_close(model.last(history(*items)), every[:, len(items) - 1], rtol=0, atol=1e-6)


def test_order_of_the_history_matters(model: Sasrec) -> None:
    assert (model.last(history(3, 9, 4)) - model.last(history(9, 3, 4))).abs().max() > 1e-3


def test_untrained_network_follows_its_seed_and_leaves_the_global_one_alone() -> None:
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    first, again, other = (untrained_sasrec(SHAPE, seed).items.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.random.get_rng_state())


def test_gradient_gathered_in_slices_equals_the_plain_one(model: Sasrec) -> None:
    inputs, targets = history(3, 9, 4), history(9, 4, 21)
    plain, sliced = copy.deepcopy(model), copy.deepcopy(model)
    logits = functional.linear(plain(inputs)[targets > 0], plain.items.weight[1:], plain.item_bias[1:])
    loss = functional.cross_entropy(logits, targets[targets > 0] - 1)
    loss.backward()  # type: ignore[no-untyped-call]
    total = backward_softmax(sliced, inputs, targets, logits_at_once=SHAPE.n_items)
    assert total / 3 == pytest.approx(float(loss.detach()), rel=1e-5)
    for (name, wanted), found in zip(plain.named_parameters(), sliced.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_histories_cut_to_the_longest_give_the_same_activations(model: Sasrec) -> None:
    whole, short = history(3, 9, 4), history(3, 9, 4)[:, :5]
    torch.testing.assert_close(model(short), model(whole)[:, :5], rtol=0, atol=1e-6)
    torch.testing.assert_close(model.last(short), model.last(whole), rtol=0, atol=1e-6)
