"""Lists from the heads of live torch models, versions, and sentences for what cannot work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.torch_exporters import (
    HISTORIES,
    KNOWN,
    given,
    gru,
    padded,
    ranker,
    sasrec,
)
from tests.unit.torch_models import DIM, ITEM_IDS, MAX_HISTORY, N_ITEMS, Sasrec, seeded

from recsae.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidRequestError,
)
from recsae.rpc.deadline import Deadline
from recsae.rpc.limits import Page
from recsae.sdk.ranking import RankAsk
from recsae.sdk.subjects import Subject
from recsae.sdk.torch import attach, version_of


def test_a_ranker_of_pairs_ranks_candidates_and_suggests_ten_by_itself() -> None:
    model, exporter = ranker()
    exported, _ = exporter.embed(Subject(item_ids=HISTORIES[0]))
    with torch.no_grad():
        scores = model(padded(KNOWN[0]).expand(N_ITEMS, -1), torch.arange(1, N_ITEMS + 1)).numpy()
    best = [ITEM_IDS[place] for place in np.argsort(-scores, kind="stable")[:10]]
    assert [row.item_id for row in exported.rows] == best
    (ranked,) = exporter.rank(RankAsk(exported.activations[:4], candidates=[best[:4]], exclude=[[best[1]]]))
    assert [ITEM_IDS[place] for place in ranked.places] == [best[0], best[2], best[3]]
    np.testing.assert_allclose(ranked.scores, scores[[ITEM_IDS.index(best[place]) for place in (0, 2, 3)]], atol=1e-5)
    with pytest.raises(InvalidRequestError, match="4 rows came for 3 candidates"):
        exporter.rank(RankAsk(exported.activations[:4], candidates=[best[:3]]))


@pytest.mark.parametrize(("make", "skip"), [(sasrec, 1), (gru, 0)])
def test_lists_are_the_models_own_with_exclusions_and_candidates(make: Any, skip: int) -> None:
    model, exporter = make()
    x = exporter.export(given(*HISTORIES)).exported.activations
    with torch.no_grad():
        inputs = (padded(*KNOWN), torch.tensor([3, 1, 4]))[: 1 if make is sasrec else 2]
        scores = model(*inputs).numpy()[:, skip:]
    lists = exporter.rank(RankAsk(x, k=7, exclude=[["i-1", "unheard-of"]] * 3))
    for ranked, row in zip(lists, scores, strict=True):
        row[0] = -np.inf
        np.testing.assert_array_equal(ranked.places, np.argsort(-row, kind="stable")[:7])
        np.testing.assert_allclose(ranked.scores, row[ranked.places], atol=1e-5)
    few = exporter.rank(RankAsk(x[:1], candidates=[["i-5", "i-6"]], exclude=[["i-6"]]))
    assert few[0].places.tolist() == [4]
    with pytest.raises(InvalidRequestError, match="unheard-of"):
        exporter.rank(RankAsk(x[:1], candidates=[["unheard-of"]]))


def test_equal_scores_are_ranked_by_the_order_of_the_items() -> None:
    _, exporter = sasrec(item_vectors=torch.zeros(N_ITEMS, DIM))
    (ranked,) = exporter.rank(RankAsk(np.ones((1, DIM), np.float32), k=5))
    assert ranked.places.tolist() == [0, 1, 2, 3, 4]


def test_versions_name_weights_and_place_and_nothing_else() -> None:
    model, exporter = sasrec()
    assert exporter.version == sasrec()[1].version
    assert len(exporter.version) == 16
    assert int(exporter.version, 16) >= 0
    assert gru()[1].version != exporter.version
    other = attach(model, "blocks.0", row="last").exporter(
        name="sasrec", items=ITEM_IDS, embed=lambda batch: model(batch.history), max_history=MAX_HISTORY
    )
    assert other.version != exporter.version
    before = version_of(model)
    assert version_of(model.to(torch.float64)) != before
    with torch.no_grad():
        model.to(torch.float32).norm.bias[0] += 1e-3
    assert version_of(model) != before


def test_another_version_is_refused() -> None:
    _, exporter = sasrec()
    exporter.check("")
    exporter.check(exporter.version)
    with pytest.raises(FailedPreconditionError, match=f"version {exporter.version}, not {'0' * 16}"):
        exporter.check("0" * 16)


def test_what_cannot_be_answered_is_refused_in_a_sentence() -> None:
    _, exporter = sasrec()
    with pytest.raises(InvalidRequestError, match="none of the 1 items of history 1 is known"):
        exporter.export(given(HISTORIES[0], ("unheard-of",)))
    with pytest.raises(InvalidRequestError, match="4097 subjects came"):
        exporter.export(given(*[HISTORIES[0]] * 4_097))
    with pytest.raises(InvalidRequestError, match="no row per candidate"):
        exporter.export(given(HISTORIES[0]), candidates=["i-1"])
    with pytest.raises(FailedPreconditionError, match="`users=` and `history_of=`"):
        exporter.export_users(Page())
    with pytest.raises(InvalidRequestError, match="'x' is none of this server's"):
        exporter.export_items(Page("x"))
    with pytest.raises(DeadlineExceededError, match="ran out"):
        exporter.export(given(HISTORIES[0]), deadline=Deadline.after(-1))
    with pytest.raises(InvalidRequestError, match=r"send \[n, 16\]"):
        exporter.rank(RankAsk(np.zeros((1, 3), np.float32)))


def test_a_model_that_does_not_fit_is_refused_when_the_exporter_is_made() -> None:
    with pytest.raises(InvalidRequestError, match=r"item_vectors have shape \[61, 16\]"):
        sasrec(item_vectors=torch.zeros(N_ITEMS + 1, DIM))
    with pytest.raises(InvalidRequestError, match="index 0, which also means padding"):
        sasrec(items={one: place for place, one in enumerate(ITEM_IDS)})
    model = seeded(Sasrec())
    values: dict[str, Any] = {"name": "x", "items": ITEM_IDS, "max_history": MAX_HISTORY}
    with pytest.raises(FailedPreconditionError, match=r"row='all' needs floats \[batch, d\]"):
        attach(model, "norm").exporter(embed=lambda batch: model(batch.history), **values)
    with pytest.raises(FailedPreconditionError, match="passed 'norm' 0 times"):
        attach(model, "norm", row="last").exporter(embed=lambda batch: None, **values)
    with pytest.raises(FailedPreconditionError, match="passed 'norm' 2 times"):
        attach(model, "norm", row="last").exporter(embed=lambda batch: [model(batch.history) for _ in "ab"], **values)
    with pytest.raises(FailedPreconditionError, match=r"call model\.eval\(\)"):
        attach(model.train(), "norm", row="last").exporter(embed=lambda batch: model(batch.history), **values)


def test_paths_that_do_not_exist_are_answered_with_close_ones() -> None:
    with pytest.raises(InvalidRequestError, match=r"no module 'blocks\.2'; closest are blocks\.1"):
        attach(seeded(Sasrec()), "blocks.2")
    with pytest.raises(InvalidRequestError, match="use all, last, interest, pair"):
        attach(seeded(Sasrec()), "norm", row="first")  # type: ignore[arg-type]
