"""Steering inside live torch models: nothing without a plan, the plan's change with one, never an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tests.unit.torch_models import DIM, BackwardGru, Gru, Interests, Matrix, Ranker, Sasrec, seeded
from tests.unit.torch_plans import CONTEXTS, HISTORIES, LENGTHS, ROW, plan, steered_by
from torch import nn

from recsae.sdk.torch import SteerContext, Tap, attach
from recsae.steering.policies import OperationKind
from recsae.steering.receipts import PolicyRef, UnsteeredReason

MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], tuple[torch.Tensor, ...]]] = {
    "sasrec": (Sasrec, {"path": "norm", "row": "last"}, (HISTORIES,)),
    "gru": (Gru, {"path": "gru", "row": "last"}, (HISTORIES, LENGTHS)),
    "gru_by_callable": (Gru, {"path": "gru", "row": lambda x: LENGTHS - 1}, (HISTORIES, LENGTHS)),
    "left_padded": (BackwardGru, {"path": "norm", "row": -1}, (HISTORIES.flip(1),)),
    "matrix": (Matrix, {"path": "users"}, (torch.tensor([1, 2, 3]),)),
    "interests": (Interests, {"path": "out", "row": "interest"}, (HISTORIES,)),
    "pairs": (Ranker, {"path": "out", "row": "pair", "at": "input"}, (HISTORIES, torch.tensor([4, 5, 6]))),
}


@pytest.fixture(params=MODELS)
def tapped(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Tap, tuple[torch.Tensor, ...]]]:
    make, where, inputs = MODELS[request.param]
    model = seeded(make())
    with attach(model, hook="h", **where) as tap, torch.no_grad():
        yield model, tap, inputs


def test_without_a_plan_or_outside_of_a_block_outputs_are_the_bare_models_bit_for_bit(tapped: Any) -> None:
    model, tap, inputs = tapped
    handles, tap._handles = tap._handles, []
    for handle in handles:
        handle.remove()
    bare = model(*inputs)
    tap.close()
    again = attach(model, **{"hook": "h", **next(where for make, where, _ in MODELS.values() if make is type(model))})
    with again.steering(CONTEXTS) as unfollowed:
        assert torch.equal(model(*inputs), bare)
    assert unfollowed.reason is UnsteeredReason.NO_PLAN
    steered_by(again, plan("h"))
    assert torch.equal(model(*inputs), bare)
    with again.steering(user_id="u-9") as unmatched:
        assert torch.equal(model(*inputs), bare)
    assert unmatched.reason is UnsteeredReason.NONE_MATCHED
    assert unmatched.receipt.plan_revision == 4


def test_a_policy_changes_the_rows_of_its_user_and_leaves_neighbours_bit_for_bit(tapped: Any) -> None:
    model, tap, inputs = tapped
    bare = model(*inputs)
    steered_by(tap, plan("h"))
    with tap.steering(CONTEXTS) as steering:
        scores = model(*inputs)
    assert [receipt.reason for receipt in steering.receipts] == [
        UnsteeredReason.NONE_MATCHED,
        UnsteeredReason.STEERED,
        UnsteeredReason.NONE_MATCHED,
    ]
    assert steering.applied == (PolicyRef("p-1", 1),)
    assert steering.receipt.delta_norm == pytest.approx(1.5)
    assert steering.error is None
    assert torch.equal(scores[[0, 2]], bare[[0, 2]])
    assert not torch.equal(scores[1], bare[1])


def test_the_change_is_the_one_plans_make_everywhere(tapped: Any) -> None:
    """x' = x + value * row at the hook, by a hook of the test's own behind the tap's."""
    model, tap, inputs = tapped
    place = tap.places[0]
    kept: list[torch.Tensor] = []

    def keep(*call: Any) -> None:
        value = call[1] if place.at == "input" else call[2]
        kept.append(value[0] if isinstance(value, tuple) else value)

    module = model.get_submodule(place.path)
    module.register_forward_pre_hook(keep) if place.at == "input" else module.register_forward_hook(keep)
    model(*inputs)
    steered_by(tap, plan("h", users=("u-1", "u-2", "u-3")))
    with tap.steering(CONTEXTS):
        model(*inputs)
    bare, changed = kept
    difference = (changed - bare).reshape(3, -1, DIM)
    touched = (difference != 0).any(-1)
    expected = {"interest": [2, 2, 2], "last": [1, 1, 1]}.get(str(place.row), [1, 1, 1])
    assert touched.sum(1).tolist() == expected
    torch.testing.assert_close(difference[touched], torch.from_numpy(1.5 * ROW).expand(sum(expected), -1))
    if place.row == "last":
        assert touched.int().argmax(1).tolist() == (LENGTHS - 1).tolist()


def test_one_user_for_a_whole_batch_is_matched_once_and_has_one_receipt() -> None:
    model = seeded(Ranker())
    candidates = torch.arange(1, 41)
    history = HISTORIES[:1].expand(40, -1)
    with attach(model, "hidden", row="pair", hook="h") as tap, torch.no_grad():
        bare = model(history, candidates)
        steered_by(tap, plan("h"))
        with tap.steering(user_id="u-2") as steering:
            scores = model(history, candidates)
    assert len(steering.receipts) == 1
    assert steering.reason is UnsteeredReason.STEERED
    shift = 1.5 * float(model.out.weight[0, 3].detach())
    torch.testing.assert_close(scores - bare, torch.full((40,), shift), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_steered_in_float32_and_rounded_once(kind: torch.dtype) -> None:
    model = nn.Identity()
    x = torch.randn(3, DIM).to(kind)
    with attach(model, "", hook="h") as tap:
        steered_by(tap, plan("h", value=0.1))
        with tap.steering(CONTEXTS):
            changed = model(x)
    assert changed.dtype is kind
    assert torch.equal(changed[[0, 2]], x[[0, 2]])
    assert torch.equal(changed[1], (x[1].float() + torch.from_numpy(np.float32(0.1) * ROW)).to(kind))


def test_autocast_and_gradients_pass_through() -> None:
    model = seeded(Gru())
    with attach(model, "gru", row="last", hook="h") as tap:
        steered_by(tap, plan("h"))
        with tap.steering(CONTEXTS) as steering, torch.autocast("cpu", torch.bfloat16):
            scores = model(HISTORIES, LENGTHS)
        assert steering.reason is UnsteeredReason.STEERED
        scores.float().sum().backward()
    assert torch.isfinite(model.items.weight.grad).all()
    assert model.items.weight.grad.abs().sum() > 0


def test_whatever_goes_wrong_the_model_answers_unsteered_and_the_receipt_says_why() -> None:
    model = seeded(Sasrec())
    with attach(model, "norm", row="last", hook="h") as tap, torch.no_grad():
        bare = model(HISTORIES)
        for given, contexts, reason in (
            (plan("h", norm_budget=1e-6), CONTEXTS, UnsteeredReason.OVER_NORM_BUDGET),
            (plan("h", kill_switch=True), CONTEXTS, UnsteeredReason.KILL_SWITCH),
            (plan("h", value=float("nan")), CONTEXTS, UnsteeredReason.INVALID_CHANGE),
            (plan("h", dim=DIM + 1), CONTEXTS, UnsteeredReason.INVALID_CHANGE),
            (plan("h", kind=OperationKind.ABLATE), CONTEXTS, UnsteeredReason.ERROR),
            (plan("elsewhere"), CONTEXTS, UnsteeredReason.VERSION_MISMATCH),
            (plan("h"), CONTEXTS[:2], UnsteeredReason.ERROR),
            (UnsteeredReason.NO_SAE_FOR_MODEL, CONTEXTS, UnsteeredReason.NO_SAE_FOR_MODEL),
            (UnsteeredReason.PLAN_TOO_OLD, CONTEXTS, UnsteeredReason.PLAN_TOO_OLD),
        ):
            steered_by(tap, given)
            with tap.steering(contexts) as steering:
                assert torch.equal(model(HISTORIES), bare)
            # The user of the policy is the second of three; of unmatched ones none is named.
            found = steering.receipts[min(1, len(steering.receipts) - 1)]
            assert found.reason is reason
            assert not found.applied
            assert (steering.error is not None) == (reason in (UnsteeredReason.ERROR, UnsteeredReason.VERSION_MISMATCH))
    assert "one per row" in str(mismatch(CONTEXTS[:2]))


def mismatch(contexts: list[SteerContext]) -> Exception | None:
    model = seeded(Sasrec())
    with attach(model, "norm", row="last", hook="h") as tap, torch.no_grad():
        steered_by(tap, plan("h"))
        with tap.steering(contexts) as steering:
            model(HISTORIES)
    return steering.error


def test_a_value_beyond_half_precision_is_not_written() -> None:
    model, x = nn.Identity(), torch.full((3, DIM), 60_000.0, dtype=torch.float16)
    with attach(model, "", hook="h") as tap:
        steered_by(tap, plan("h", value=30_000.0))
        with tap.steering(CONTEXTS) as steering:
            assert torch.equal(model(x), x)
    assert steering.receipts[1].reason is UnsteeredReason.INVALID_CHANGE
    assert "beyond torch.float16" in str(steering.error)


def test_a_block_in_which_the_model_did_not_run_says_so() -> None:
    with attach(seeded(Sasrec()), "norm", row="last") as tap, tap.steering(user_id="u-2") as steering:
        pass
    assert steering.reason is UnsteeredReason.ERROR
    assert "did not pass 'norm'" in str(steering.error)


def test_lengths_are_told_where_the_model_was_not_called_with_its_history() -> None:
    model = seeded(Gru())
    with attach(model, "gru", row="last", hook="h") as tap, torch.no_grad():
        steered_by(tap, plan("h"))
        bare = model.forward(HISTORIES, LENGTHS)  # as RecBole calls its models: past their own hooks
        with tap.steering(CONTEXTS) as untold:
            assert torch.equal(model.forward(HISTORIES, LENGTHS), bare)
        with tap.steering(CONTEXTS, lengths=LENGTHS) as told:
            assert not torch.equal(model.forward(HISTORIES, LENGTHS)[1], bare[1])
    assert "give `lengths=`" in str(untold.error)
    assert told.reason is UnsteeredReason.STEERED


def test_the_arguments_of_one_forward_say_nothing_about_the_next() -> None:
    model = seeded(Sasrec())
    with attach(model, "norm", row="last", hook="h") as tap, torch.no_grad():
        steered_by(tap, plan("h"))
        with tap.steering(CONTEXTS) as steering:
            model(HISTORIES)
            assert steering.reason is UnsteeredReason.STEERED
            other = HISTORIES.flip(0).contiguous()
            bare = seeded(Sasrec())(other)
            assert torch.equal(model.forward(other), bare)
    assert steering.receipts[1].reason is UnsteeredReason.ERROR
    assert "give `lengths=`" in str(steering.error)
    assert steering.forwards == 2


def test_a_tap_put_by_hand_does_the_same() -> None:
    x = torch.randn(3, DIM)
    tap = attach(nn.Identity(), hook="h")
    assert tap(x) is x
    steered_by(tap, plan("h"))
    with tap.steering(CONTEXTS) as steering:
        changed = tap(x)
    assert steering.receipts[1].reason is UnsteeredReason.STEERED
    torch.testing.assert_close(changed[1] - x[1], torch.from_numpy(1.5 * ROW))
    assert torch.equal(changed[[0, 2]], x[[0, 2]])


class Named(NamedTuple):
    """A module's output with names."""

    hidden: torch.Tensor
    attention: int


def values_of(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else list(value)


@pytest.mark.parametrize(
    "value",
    [
        lambda x: (0, x),
        lambda x: [0, x],
        lambda x: {"h": x},
        lambda x: Named(x, 0),
        lambda x: torch.max(x[:, None], 1),
    ],
)
def test_tensors_in_containers_are_replaced_in_copies(value: Any) -> None:
    class Wrapped(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return value(x)

    model, x = Wrapped(), torch.randn(3, DIM)
    bare = model(x)
    with attach(model, "", hook="h") as tap:
        steered_by(tap, plan("h"))
        with tap.steering(CONTEXTS) as steering:
            changed = model(x)
    assert steering.receipts[1].reason is UnsteeredReason.STEERED
    assert type(changed) is type(bare)
    before, after = (
        next(one for one in values_of(value) if isinstance(one, torch.Tensor)) for value in (bare, changed)
    )
    assert not torch.equal(after[1], before[1])
    assert torch.equal(after[0], before[0])
