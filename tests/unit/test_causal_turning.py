"""Lists under doses: the compiled loop, the plain one and a brute-force ranking say the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from recsae.concepts.causal import board, compiled, plain, turning
from recsae.concepts.causal.board import Head
from recsae.concepts.causal.doses import GRID, deltas, same_as
from recsae.concepts.causal.panel import Panel
from recsae.concepts.causal.turning import Outcomes, Turntable
from recsae.recommenders.metrics import ranks_from_scores

N_ITEMS, USERS, DIM, SETS = 75, 40, 6, 5


def panel(seed: int = 0, *, consumed: int = 7) -> Panel:
    random = np.random.default_rng(seed)
    taken = [1 + random.permutation(N_ITEMS)[: consumed + 1] for _ in range(USERS)]
    return Panel(
        x=random.normal(size=(USERS, DIM)).astype(np.float32),
        user=np.arange(USERS),
        verifies=np.arange(USERS) % 2 == 0,
        target=np.array([one[0] for one in taken]),
        offsets=np.arange(USERS + 1) * consumed,
        consumed=np.concatenate([one[1:] for one in taken]),
        fingerprint="f" * 16,
    )


def head(seed: int = 1, *, ties: bool = False) -> Head:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(N_ITEMS + 1, DIM)).astype(np.float32)
    if ties:
        vectors = np.round(vectors)
    return Head(vectors, random.normal(size=N_ITEMS + 1).astype(np.float32).round(0 if ties else 6))


def sets(seed: int = 2) -> sparse.csr_matrix:
    member = np.random.default_rng(seed).random((N_ITEMS + 1, SETS)) < 0.3
    member[0] = False
    return sparse.csr_matrix(member.astype(np.float32))


def moves(seed: int = 3, directions: int = 4) -> tuple[Any, Any, Any]:
    """Directions, deltas of the whole grid and sets; a third of the users fire."""
    random = np.random.default_rng(seed)
    w_dec = random.normal(size=(directions, DIM)).astype(np.float32)
    z = np.maximum(random.normal(size=(directions, USERS)) - 0.5, 0).astype(np.float32)
    return w_dec, deltas(z, np.full(directions, 0.8, np.float32)), np.arange(directions) % SETS


@pytest.fixture(params=["compiled", "plain"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turning, "_turn", {"compiled": compiled.turn, "plain": plain.turn}[request.param])


def test_the_compiled_loop_knows_the_constants_of_the_board() -> None:
    assert (compiled.BLOCK, compiled.DEPTH, float(compiled.LISTED)) == (
        board.BLOCK,
        board.DEPTH,
        float(board.NEVER) / 2,
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("consumed", [7, N_ITEMS - 4])
def test_the_compiled_loop_equals_the_plain_one(monkeypatch: pytest.MonkeyPatch, ties: bool, consumed: int) -> None:
    """Also where scores tie and where fewer than ten items are left to list."""
    table = Turntable(panel(consumed=consumed), head(ties=ties), sets())
    found: list[Outcomes] = []
    for one in (compiled.turn, plain.turn):
        monkeypatch.setattr(turning, "_turn", one)
        found.append(table.turn(*moves(), same_as()))
    for name, value in vars(found[0]).items():
        np.testing.assert_array_equal(value, getattr(found[1], name), err_msg=name)


@pytest.mark.usefixtures("loop")
def test_gains_hits_and_kept_are_those_of_ranking_the_changed_activations() -> None:
    users, model, member = panel(), head(), sets()
    w_dec, change, own = moves()
    made = Turntable(users, model, member).turn(w_dec, change, own, same_as())
    owners = np.repeat(np.arange(USERS), np.diff(users.offsets))

    def ranked(x: Any) -> tuple[Any, Any]:
        scores = model.scores(x.astype(np.float32))
        scores[owners, users.consumed] = -np.inf
        scores[:, 0] = -np.inf
        return ranks_from_scores(scores, users.target), np.argsort(-scores, axis=1, kind="stable")[:, :10]

    base_ranks, base = ranked(users.x)
    np.testing.assert_allclose(made.base_gains, np.where(base_ranks <= 10, 1 / np.log2(base_ranks + 1.0), 0), rtol=1e-6)
    dense = np.asarray(member.todense())
    for direction in range(len(w_dec)):
        for dose in range(len(GRID)):
            ranks, lists = ranked(users.x + change[direction, dose][:, None] * w_dec[direction])
            gains = np.where(ranks <= 10, 1 / np.log2(ranks + 1.0), 0)
            np.testing.assert_allclose(made.gains[direction, dose], gains, atol=1e-6)
            np.testing.assert_array_equal(made.hits[direction, dose], dense[lists, own[direction]].sum(axis=1))
            overlap = [len(set(a) & set(b)) for a, b in zip(lists.tolist(), base.tolist(), strict=True)]
            np.testing.assert_array_equal(made.kept[direction, dose], overlap)


@pytest.mark.usefixtures("loop")
def test_scores_in_several_parts_give_the_same_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Turntable(panel(), head(), sets()).turn(*moves(), same_as())
    monkeypatch.setattr(board, "_SCORES_AT_ONCE", 7 * 80)
    parts = Turntable(panel(), head(), sets()).turn(*moves(), same_as())
    for name, value in vars(whole).items():
        np.testing.assert_array_equal(value, getattr(parts, name), err_msg=name)


@pytest.mark.usefixtures("loop")
def test_reranking_by_a_facet_changes_exactly_as_much_of_the_lists_as_its_share_grows() -> None:
    """What off-target change is measured against, known without re-ranking: a bonus for the facet's items alone."""
    member = sets()
    tag = np.concatenate([np.asarray(member.todense())[:, :1], head().vectors], axis=1).astype(np.float32)
    users = panel()
    wide = Panel(**{**vars(users), "x": np.concatenate([np.zeros((USERS, 1), np.float32), users.x], axis=1)})
    direction = np.eye(1, DIM + 1, dtype=np.float32)
    bonus = np.broadcast_to(np.array([-2.0, -0.5, 0.5, 2.0], np.float32)[None, :, None], (1, 4, USERS))
    made = Turntable(wide, Head(tag, head().biases), member).turn(direction, bonus, np.array([0]))
    moved = made.hits[0].astype(int) - made.base_hits[0].astype(int)
    assert np.abs(moved).sum() > 0
    np.testing.assert_array_equal(10 - made.kept[0].astype(int), np.abs(moved))
