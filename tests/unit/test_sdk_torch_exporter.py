"""Live torch models behind the exporter contract: rows, orders, pages, and whom they are of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.torch_exporters import (
    HISTORIES,
    KNOWN,
    backward,
    given,
    gru,
    interests,
    matrix,
    padded,
    ranker,
    sasrec,
    seen,
)
from tests.unit.torch_models import DIM, ITEM_IDS, MAX_HISTORY, N_ITEMS, USER_IDS, Gru, Matrix, Tower, seeded

from recsae.errors import (
    FailedPreconditionError,
    NotFoundError,
)
from recsae.rpc.limits import Page
from recsae.sdk.ranking import RankAsk
from recsae.sdk.subjects import Subject
from recsae.sdk.torch import attach
from recsae.store.pseudonyms import pseudonym


def test_last_positions_are_the_activations_of_the_model_and_unknown_items_are_left_out() -> None:
    model, exporter = sasrec()
    exported = exporter.export(given(*HISTORIES)).exported
    wanted = seen(model, "norm", padded(*KNOWN))[torch.arange(3), torch.tensor([2, 0, 3])]
    np.testing.assert_array_equal(exported.activations, wanted.numpy())
    assert [(row.history_index, row.position) for row in exported.rows] == [(0, 3), (1, 1), (2, 4)]


@pytest.mark.parametrize("make", [sasrec, gru])
def test_every_position_of_a_causal_model_comes_from_one_run_and_equals_its_prefixes(make: Any) -> None:
    _, exporter = make()
    assert exporter.model.embed_positions.__self__._looks_ahead is False
    exported = exporter.export(given(*HISTORIES), every_position=True).exported
    prefixes = [history[:end] for history in KNOWN for end in range(1, len(history) + 1)]
    alone = exporter.export(given(*(tuple(f"i-{item}" for item in one) for one in prefixes))).exported
    np.testing.assert_allclose(exported.activations, alone.activations, atol=1e-5)
    assert [(row.history_index, row.position) for row in exported.rows] == [
        (index, position) for index, history in enumerate(KNOWN) for position in range(1, len(history) + 1)
    ]


def test_positions_that_know_what_comes_later_are_computed_prefix_by_prefix() -> None:
    model, exporter = backward()
    exported = exporter.export(given(HISTORIES[0]), every_position=True).exported
    inputs = padded((3,), (3, 60), (3, 60, 7), left=True)
    np.testing.assert_allclose(exported.activations, seen(model, "norm", inputs)[:, -1].numpy(), atol=1e-6)
    # The shortcut would have been wrong here, which the exporter found out by itself.
    whole = attach(model, "norm", row="last").exporter(
        name="x",
        items=ITEM_IDS,
        max_history=MAX_HISTORY,
        padding="left",
        embed=lambda batch: model(batch.history),
    )
    again = whole.export(given(HISTORIES[0]), every_position=True).exported
    np.testing.assert_allclose(again.activations, exported.activations, atol=1e-6)


def test_long_histories_give_their_newest_positions() -> None:
    _, exporter = sasrec()
    long = tuple(f"i-{item}" for item in range(1, 13))
    every = exporter.export(given(long), every_position=True).exported
    assert [row.position for row in every.rows] == list(range(5, 13))
    newest = exporter.export(given(long[-MAX_HISTORY:])).exported.activations
    np.testing.assert_allclose(every.activations[-1:], newest, atol=1e-6)


def test_a_further_place_is_exported_under_its_name_and_is_not_steerable() -> None:
    model, exporter = sasrec()
    exported = exporter.export(given(HISTORIES[1]), hook="block_0").exported
    np.testing.assert_array_equal(exported.activations[0], seen(model, "blocks.0", padded((1,)))[0, 0].numpy())
    assert [(hook.name, hook.steerable) for hook in exporter.card.hooks] == [("sequence", True), ("block_0", False)]
    with pytest.raises(NotFoundError, match="'sequence', 'block_0'"):
        exporter.export(given(HISTORIES[0]), hook="block_7")


def test_users_of_a_model_without_histories_are_its_rows_and_items_its_vectors() -> None:
    model, exporter = matrix()
    page = exporter.export_users(Page(limit=5))
    assert page.next_cursor == "5"
    rest = exporter.export_users(Page(page.next_cursor, 4_096))
    assert rest.next_cursor == ""
    assert [row.user_id for row in (*page.exported.rows, *rest.exported.rows)] == list(USER_IDS)
    together = np.concatenate([page.exported.activations, rest.exported.activations])
    np.testing.assert_array_equal(together, model.users.weight.detach().numpy())
    items = exporter.export_items(Page()).exported
    np.testing.assert_array_equal(items.activations, model.items.weight.detach().numpy())
    assert [row.item_id for row in items.rows] == list(ITEM_IDS)
    with pytest.raises(FailedPreconditionError, match="POSITIONS_LAST"):
        exporter.export([Subject("u-1")], every_position=True)
    with pytest.raises(NotFoundError, match="'nobody'"):
        exporter.embed(Subject("nobody"))


def test_a_user_is_found_by_id_and_by_pseudonym_and_listed_by_pseudonym_alone() -> None:
    key = b"k" * 32
    model, exporter = matrix(pseudonym_key=key)
    hidden = pseudonym(key, "u-3")
    exported = exporter.export([Subject("u-3"), Subject(hidden), Subject("nobody")]).exported
    np.testing.assert_array_equal(exported.activations[0], model.users.weight[3].detach().numpy())
    np.testing.assert_array_equal(exported.activations[1], exported.activations[0])
    np.testing.assert_array_equal(exported.activations[2], model.users.weight[0].detach().numpy())
    assert [row.user_id for row in exported.rows] == ["u-3", hidden, "nobody"]
    listed = [row.user_id for row in exporter.export_users(Page()).exported.rows]
    assert listed == [pseudonym(key, user) for user in USER_IDS]


def test_the_servers_own_histories_are_read_by_user() -> None:
    held = {"u-1": HISTORIES[0], "u-2": ("unheard-of",)}
    _, exporter = sasrec(users=USER_IDS, history_of=lambda user: held.get(user, ()), pseudonym_key=b"k")
    exported, case = exporter.embed(Subject(pseudonym(b"k", "u-1")))
    assert case.item_ids == list(HISTORIES[0])
    np.testing.assert_array_equal(exported.activations, exporter.export(given(HISTORIES[0])).exported.activations)
    assert [row.history_index for row in exporter.export_users(Page()).exported.rows] == [1]
    with pytest.raises(NotFoundError, match="u-9"):
        exporter.embed(Subject("u-9"))


def test_attributes_reach_the_model_as_numbers_and_what_is_unknown_as_its_default() -> None:
    model = seeded(Tower())
    exporter = attach(model, "").exporter(
        name="tower",
        items=ITEM_IDS,
        embed=lambda batch: model(batch.category("country", ["DK", "SE"]), batch.number("age", 30.0)),
        attributes=("country", "age"),
        reads_history=False,
    )
    subjects = [
        Subject(attributes={"country": "SE", "age": 41.0, "unread": "x"}),
        Subject(attributes={"country": "NO", "age": "old"}),
        Subject("anybody"),
    ]
    exported = exporter.export(subjects).exported
    with torch.no_grad():
        wanted = model(torch.tensor([2, 0, 0]), torch.tensor([41.0, 30.0, 30.0])).numpy()
    np.testing.assert_allclose(exported.activations, wanted, rtol=1e-6)
    assert exporter.card.attributes == ("country", "age")
    with pytest.raises(FailedPreconditionError, match="no item vectors beside it"):
        exporter.export_items(Page())


def test_interests_are_rows_of_their_own_and_the_best_one_ranks() -> None:
    model, exporter = interests()
    exported = exporter.export(given(*HISTORIES)).exported
    assert exported.activations.shape == (6, DIM)
    assert [(row.history_index, row.interest) for row in exported.rows] == [(i, j) for i in range(3) for j in range(2)]
    every = exporter.export(given(HISTORIES[0]), every_position=True).exported
    assert [(row.position, row.interest) for row in every.rows] == [(i, j) for i in (1, 2, 3) for j in range(2)]
    with torch.no_grad():
        scores = model(padded(*KNOWN)).numpy()
    for ranked, wanted in zip(exporter.rank(RankAsk(exported.activations)), scores, strict=True):
        np.testing.assert_allclose(ranked.scores, np.sort(wanted)[::-1][:10], atol=1e-5)


def test_pairs_follow_the_candidates_and_else_the_newest_item() -> None:
    model, exporter = ranker()
    exported = exporter.export(given(HISTORIES[0], ()), candidates=["i-4", "i-5"]).exported
    inputs = padded((3, 60, 7), (3, 60, 7), (), ()), torch.tensor([4, 5, 4, 5])
    np.testing.assert_allclose(exported.activations, seen(model, "hidden", *inputs).numpy(), atol=1e-6)
    assert [(row.history_index, row.item_id, row.position) for row in exported.rows] == [
        (0, "i-4", 3),
        (0, "i-5", 3),
        (1, "i-4", 0),
        (1, "i-5", 0),
    ]
    newest = exporter.export(given(HISTORIES[0])).exported
    wanted = seen(model, "hidden", padded((3, 60)), torch.tensor([7]))
    np.testing.assert_allclose(newest.activations, wanted.numpy(), atol=1e-6)
    every = exporter.export(given(HISTORIES[0]), every_position=True).exported
    assert [(row.item_id, row.position) for row in every.rows] == [("i-3", 1), ("i-60", 2), ("i-7", 3)]
    np.testing.assert_allclose(every.activations[-1:], newest.activations, atol=1e-6)


def test_half_precision_is_exported_exactly_and_ranked_by_a_head_of_the_same_type() -> None:
    model = seeded(Gru()).to(torch.bfloat16)
    exporter = attach(model, "gru", row="last").exporter(
        name="half",
        items=ITEM_IDS,
        max_history=MAX_HISTORY,
        embed=lambda batch: model(batch.history, batch.lengths),
        head=lambda x: x @ model.items.weight[1:].T,
    )
    exported = exporter.export(given(*HISTORIES)).exported
    wanted = seen(model, "gru", padded(*KNOWN), torch.tensor([3, 1, 4]))[0][torch.arange(3), torch.tensor([2, 0, 3])]
    np.testing.assert_array_equal(exported.activations, wanted.float().numpy())
    assert len(exporter.rank(RankAsk(exported.activations))[0].places) == 10


def test_a_model_with_no_module_at_the_cut_returns_its_activations() -> None:
    vectors = torch.randn(N_ITEMS + 1, DIM)
    exporter = attach(seeded(Matrix())).exporter(
        name="mean",
        items=ITEM_IDS,
        max_history=MAX_HISTORY,
        embed=lambda batch: vectors[batch.history].sum(1),
    )
    exported = exporter.export(given(HISTORIES[1])).exported
    np.testing.assert_allclose(exported.activations[0], (vectors[1] + 7 * vectors[0]).numpy(), rtol=1e-4, atol=1e-5)
