"""Subjects with several rows: one per interest, one per candidate. Explained, previewed and compared as one subject."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.toy_interpreter import (
    IDS,
    MODEL_VERSION,
    D,
    ToyRecommender,
    activations,
    library_of,
    metrics,
    publish,
)

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.recommenders.description import RowKind
from recsae.rpc.deadline import Deadline
from recsae.steering.policies import Operation, OperationKind
from recsae_interpreter.convert import explain_response
from recsae_interpreter.handlers.compare import CompareHandler, CompareQuery, UserGroup
from recsae_interpreter.handlers.explain import ExplainHandler, ExplainQuery, Explanation
from recsae_interpreter.handlers.preview import PreviewHandler, PreviewQuery
from recsae_interpreter.library import Library
from recsae_interpreter.readings import Batch, HeadRows, ItemTable, Reading, RowOwner, ScoredItem, Subject
from recsae_interpreter.recommender import NotOfferedError

ADD = Operation("c-toy-3", OperationKind.ADD, 1.0)
INTERESTS = 3


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return library_of(tmp_path, {"toy": publish(tmp_path, "toy")})


def explain(library: Library, recommender: ToyRecommender, **query: Any) -> Explanation:
    return ExplainHandler(library, recommender, metrics())(ExplainQuery(**{"subject": Subject("ann"), **query}))


def several(rows: RowKind) -> ToyRecommender:
    return ToyRecommender(rows, INTERESTS if rows == "interest" else 1)


@pytest.mark.parametrize("rows", ["interest", "pair"])
def test_a_concept_is_as_strong_as_where_it_fires_most_and_says_where(library: Library, rows: RowKind) -> None:
    recommender = several(rows)
    found = explain(library, recommender)
    loaded = library.model("toy")
    codes = loaded.sae.encode(found.reading.activations)
    values = codes.dense(loaded.sae.width)
    strengths = values / loaded.basis.p95
    assert {one.concept.latent for one in found.firings} == set(np.flatnonzero(values.max(axis=0) > 0).tolist())
    for one in found.firings:
        latent = one.concept.latent
        assert one.strength == pytest.approx(strengths[:, latent].max(), rel=1e-6)
        assert one.value == pytest.approx(values[:, latent].max(), rel=1e-6)
        assert sorted(one.at) == np.flatnonzero(values[:, latent] > 0).tolist()
    ordered = [one.strength for one in found.firings]
    assert ordered == sorted(ordered, reverse=True)
    assert any(len(one.at) > 1 for one in found.firings)


def test_the_unexplained_share_of_several_rows_weighs_each_by_its_spread(library: Library) -> None:
    x = activations("ann", INTERESTS) * np.array([[0.1], [1.0], [5.0]], np.float32)
    found = explain(library, ToyRecommender("interest", INTERESTS, fixed={"ann": x}))
    sae = library.model("toy").sae
    x_hat = sae.decode(sae.encode(x))
    assert found.unexplained_share == pytest.approx(
        np.square(x - x_hat).sum() / np.square(x - sae.mean).sum(), rel=1e-5
    )
    assert found.unexplained_share != pytest.approx(found.shares.mean(), rel=1e-2)


def test_rows_that_cannot_be_explained_are_left_out_and_counted(library: Library, tmp_path: Path) -> None:
    sae = library.model("toy").sae
    x = activations("ann", INTERESTS)
    codes = sae.encode(x)
    share = sae.relative_error(x, sae.decode(codes))
    kept = int(share.argmin())
    between = float(np.sort(share)[:2].mean())
    limited = library_of(tmp_path, {"toy": publish(tmp_path, "toy", error_p99=between)})
    found = explain(limited, several("interest"))
    assert not found.refusal
    assert found.used.tolist() == [row == kept for row in range(INTERESTS)]
    assert {row for one in found.firings for row in one.at} == {kept}
    assert {one.concept.latent for one in found.firings} == set(codes.indices[kept][codes.fired[kept]].tolist())
    message = explain_response(found)
    assert (message.rows_left_out, message.explainable) == (INTERESTS - 1, True)
    assert [row.explainable for row in message.rows] == found.used.tolist()
    assert all(list(firing.interests) == [kept] for firing in message.firings)


def test_the_items_of_pairs_that_cannot_be_explained_are_left_out(library: Library, tmp_path: Path) -> None:
    sae = library.model("toy").sae
    whole = explain(library, several("pair"))
    between = float(np.median(whole.shares))
    limited = library_of(tmp_path, {"toy": publish(tmp_path, "toy", error_p99=between)})
    found = explain(limited, several("pair"))
    bad = {item for item, share in zip(found.reading.item_ids, whole.shares, strict=True) if share > between}
    assert bad
    assert [one.item for one in found.items] == [one.item for one in whole.items if one.item.item_id not in bad]
    message = explain_response(found)
    assert message.rows_left_out == len(bad)
    assert {row.item_id for row in message.rows if not row.explainable} == bad
    assert not {item for firing in message.firings for item in firing.item_ids} & bad
    assert sae.error_p99 > between


def test_a_subject_none_of_whose_rows_can_be_explained_is_refused_and_still_shows_what_fires(tmp_path: Path) -> None:
    strict = library_of(tmp_path, {"toy": publish(tmp_path, "toy", error_p99=1e-9)})
    found = explain(strict, several("interest"))
    assert found.refusal.startswith("cannot explain: ")
    assert f"the best of {INTERESTS} interests" in found.refusal
    assert found.firings
    assert found.items == ()
    single = explain(strict, several("subject"))
    assert "the best of" not in single.refusal


def test_of_interests_a_contribution_is_what_the_score_loses_without_the_concept_in_all_of_them(
    library: Library,
) -> None:
    recommender = several("interest")
    found = explain(library, recommender, item_limit=4)
    w_dec = library.model("toy").sae.w_dec
    x = found.reading.activations
    assert [one.item.item_id for one in found.items] == [
        IDS[item] for item in np.argsort(-recommender.scores(x))[:4].tolist()
    ]
    for one in found.items:
        total = sum(part.score for part in one.contributions) + one.unexplained
        assert total == pytest.approx(one.item.score, abs=1e-4)
        item = IDS.index(one.item.item_id)
        for firing in found.firings:
            without = x.copy()
            for row, value in firing.at.items():
                without[row] -= value * w_dec[firing.concept.latent]
            lost = recommender.scores(x)[item] - recommender.scores(without)[item]
            part = next(part for part in one.contributions if part.concept_id == firing.concept.id)
            assert part.score == pytest.approx(float(lost), abs=1e-4)


def test_the_score_of_a_pair_is_split_over_the_concepts_of_its_own_row(library: Library) -> None:
    found = explain(library, several("pair"), candidates=("i-3", "i-8", "i-1"), item_limit=2)
    w_dec = library.model("toy").sae.w_dec
    assert found.reading.item_ids == ("i-3", "i-8", "i-1")
    assert len(found.items) == 2
    for one in found.items:
        row = found.reading.item_ids.index(one.item.item_id)
        x = found.reading.activations[row]
        own = {firing.concept.id: firing for firing in found.firings if row in firing.at}
        assert {part.concept_id for part in one.contributions} == set(own)
        assert len(own) < len(found.firings)
        for part in one.contributions:
            firing = own[part.concept_id]
            without = x - firing.at[row] * w_dec[firing.concept.latent]
            assert part.score == pytest.approx(float(np.tanh(x).sum() - np.tanh(without).sum()), abs=1e-4)
        assert sum(part.score for part in one.contributions) + one.unexplained == pytest.approx(
            one.item.score, abs=1e-4
        )


def test_without_candidates_a_ranker_of_pairs_is_asked_for_its_own_best(library: Library) -> None:
    recommender = several("pair")
    assert explain(library, recommender).reading.item_ids == IDS[:10]
    assert [name for name, _ in recommender.calls] == ["embed"]
    assert explain(library, recommender, item_limit=12).reading.item_ids == IDS[:12]
    assert ("best_items", 12) in recommender.calls


@pytest.mark.parametrize(
    ("candidates", "words"),
    [(("i-1", "i-2", "i-1"), "'i-1' is named twice"), (tuple(f"x{n}" for n in range(1001)), "at most 1,000")],
)
def test_candidates_that_cannot_be_meant_are_refused(library: Library, candidates: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        explain(library, several("pair"), candidates=candidates)


def test_of_rows_a_caller_has_those_of_the_first_subject_are_explained(library: Library) -> None:
    x = activations("ann", 5)
    owners = tuple(RowOwner(history_index=at // INTERESTS, interest=at % INTERESTS) for at in range(5))
    batch = Batch("toy", "final", MODEL_VERSION, x, owners)
    found = explain(library, several("interest"), subject=Subject(), batch=batch)
    np.testing.assert_array_equal(found.reading.activations, x[:INTERESTS])
    with pytest.raises(InvalidRequestError, match="2 rows came of the first subject"):
        explain(library, several("interest"), batch=Batch("toy", "final", MODEL_VERSION, x[:2], owners[:2]))
    with pytest.raises(InvalidRequestError, match="name the candidate of every row"):
        explain(library, several("pair"), batch=Batch("toy", "final", MODEL_VERSION, x))
    pairs = tuple(RowOwner(item_id=item) for item in ("i-4", "i-9"))
    found = explain(library, several("pair"), batch=Batch("toy", "final", MODEL_VERSION, x[:2], pairs))
    assert found.reading.item_ids == ("i-4", "i-9")


def preview(library: Library, recommender: ToyRecommender, **query: Any) -> Any:
    handler = PreviewHandler(library, recommender, norm_budget=10.0)
    return handler(PreviewQuery((ADD,), "toy", Subject("ann"), **query))


def test_a_preview_steers_every_interest(library: Library) -> None:
    recommender = several("interest")
    found = preview(library, recommender, k=3)
    loaded = library.model("toy")
    x = activations("ann", INTERESTS)
    moved = x + loaded.basis.p95[3] * loaded.sae.w_dec[3]
    assert [one.item.item_id for one in found.after] == [
        IDS[item] for item in np.argsort(-recommender.scores(moved))[:3].tolist()
    ]
    assert found.rows == INTERESTS
    strongest = loaded.sae.encode(x).dense(loaded.sae.width)[:, 3].max() / loaded.basis.p95[3]
    assert found.strengths[0].before == pytest.approx(strongest, rel=1e-5)
    assert found.strengths[0].target == pytest.approx(strongest + 1.0, rel=1e-5)


def test_a_preview_of_pairs_ranks_five_times_as_many_of_the_models_best_or_the_candidates_named(
    library: Library,
) -> None:
    recommender = several("pair")
    found = preview(library, recommender, k=12)
    assert ("best_items", 60) in recommender.calls
    assert found.rows == len(IDS)
    preview(library, recommender, k=2)
    assert recommender.calls[-2] == ("best_items", 50)
    named = preview(library, recommender, k=2, candidates=("i-2", "i-3", "i-5"))
    assert {one.item_id for one in named.before} < {"i-2", "i-3", "i-5"}
    loaded = library.model("toy")
    x = activations("ann") * recommender.bent(("i-2", "i-3", "i-5")) + loaded.basis.p95[3] * loaded.sae.w_dec[3]
    scores = np.tanh(x).sum(axis=1)
    assert named.after[0].item.score == pytest.approx(float(scores.max()), abs=1e-4)


def test_groups_are_compared_by_the_strongest_row_of_each_user(library: Library) -> None:
    users = [f"user-{number}" for number in range(12)]
    query = CompareQuery("toy", UserGroup(users[:6]), UserGroup(users[6:]), limit=500)
    recommender = several("interest")
    found = CompareHandler(library, recommender)(query).contrast
    loaded = library.model("toy")
    strengths = np.stack(
        [loaded.sae.encode(recommender.of(Subject(user))).dense(loaded.sae.width).max(axis=0) for user in users]
    )
    strengths /= loaded.basis.p95
    np.testing.assert_allclose(found.rate_a, (strengths[:6] > 0).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.strength_b, strengths[6:].mean(axis=0), rtol=1e-5)
    assert (found.users_a, found.users_b) == (6, 6)


def test_users_of_a_ranker_of_pairs_are_compared_over_candidates_named_or_their_newest_items(library: Library) -> None:
    recommender = several("pair")
    handler = CompareHandler(library, recommender)
    users = [f"user-{number}" for number in range(4)]
    with pytest.raises(InvalidRequestError, match="name candidate_item_ids, or give users by their histories"):
        handler(CompareQuery("toy", UserGroup(users[:2]), UserGroup(users[2:])))
    over = CompareQuery("toy", UserGroup(users[:2]), UserGroup(users[2:]), candidates=IDS[:3])
    assert handler(over).contrast.users_a == 2
    assert all(candidates == IDS[:3] for _, (_, _, candidates) in recommender.calls)
    histories = [("i-1", "i-2"), ("i-3", "i-4"), ("i-5", "i-6"), ("i-7", "i-8")]
    assert handler(CompareQuery("toy", UserGroup(histories=histories[:2]), UserGroup(histories=histories[2:])))
    with pytest.raises(InvalidRequestError, match="reads no candidates"):
        CompareHandler(library, several("subject"))(over)


def test_users_of_a_model_that_ignores_histories_are_named_by_their_ids(library: Library) -> None:
    handler = CompareHandler(library, ToyRecommender(ignores_history=True))
    groups = UserGroup(("ann", "bob")), UserGroup(histories=[("i-1",), ("i-2",)])
    with pytest.raises(InvalidRequestError, match="ignores histories"):
        handler(CompareQuery("toy", *groups))


class Moved(ToyRecommender):
    """Its items changed under it: a new catalogue, of which a ranking was made before."""

    def items(self, reading: Reading, deadline: Deadline) -> ItemTable | None:
        return ItemTable({"i-0": 1}, np.zeros((2, D), np.float32), None)


def test_an_item_the_catalogue_lacks_is_a_clear_error_and_no_guess(library: Library) -> None:
    with pytest.raises(FailedPreconditionError, match="not in the items of version"):
        explain(library, Moved())


class ExporterAlone(ToyRecommender):
    """It implements `ActivationExporter` and no `Rank`."""

    def rank(
        self, reading: Reading, lists: Sequence[HeadRows], *, k: int, deadline: Deadline, candidates: Sequence[str] = ()
    ) -> list[list[ScoredItem]]:
        raise NotOfferedError("the recommender does not implement what RankRequest asks for")


def test_a_recommender_that_does_not_rank_is_explained_without_items(library: Library) -> None:
    found = explain(library, ExporterAlone())
    assert found.firings
    assert found.items == ()
    assert found.no_items == "the recommender does not implement what RankRequest asks for"
