"""A panel shows what steering each of its users alone would, and asks for no more than it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.toy_interpreter import IDS, ITEMS, MODEL_VERSION, Floats, ToyRecommender, library_of, publish

from recsae.concepts.catalogue import Catalogue, make_catalogue
from recsae.concepts.estimates import Estimate
from recsae.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
)
from recsae.rpc.deadline import Deadline
from recsae.steering.policies import Operation, OperationKind, Policy, PolicyDraft, Window, new_policy
from recsae.steering.segments import AllOf, Equals
from recsae_interpreter.handlers.panel_lists import ItemNumbers
from recsae_interpreter.handlers.panel_users import Who
from recsae_interpreter.handlers.preview import PreviewHandler, PreviewQuery
from recsae_interpreter.handlers.preview_panel import PanelPreview, PanelQuery, PreviewPanelHandler
from recsae_interpreter.library import Library
from recsae_interpreter.readings import Reading, ScoredItem, Subject

ADD = Operation("c-toy-3", OperationKind.ADD, 1.5)
GENRES = ("genre=Horror", "genre=War", "year=1999", "genre=Horror ∩ genre=War", "like=A; B")
K = 4


def history(user: int) -> tuple[str, ...]:
    """Of user 0 nothing can be hidden, user 1 has the newest item twice."""
    if user == 0:
        return IDS[:1]
    items = np.random.default_rng(user).permutation(ITEMS)[: 2 + user % 5].tolist()
    return tuple(IDS[item] for item in ([items[0], *items[1:], items[0]] if user == 1 else items))


STORED = {f"{'ab'[user % 2]}-{user}": history(user) for user in range(20)}


def catalogue() -> Catalogue:
    """All items but the last, which came later."""
    carriers, carried = np.nonzero(np.random.default_rng(2).random((ITEMS - 1, len(GENRES))) < 0.4)
    return make_catalogue(IDS[:-1], np.arange(ITEMS - 1) ** 2, GENRES, carriers, carried)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Its dictionary is of a release that kept no catalogue."""
    folder = tmp_path_factory.mktemp("bare")
    return library_of(folder, {"toy": publish(folder, "toy")})


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("library")
    return library_of(folder, {"toy": publish(folder, "toy", catalogue=catalogue())})


def no_policy(policy_id: str) -> Policy:
    raise NotFoundError(policy_id)


def panel(
    library: Library,
    recommender: ToyRecommender | None = None,
    *,
    policy: Callable[[str], Policy] = no_policy,
    norm_budget: float = 10.0,
    **query: Any,
) -> PanelPreview:
    handler = PreviewPanelHandler(library, recommender or toy(), policy, norm_budget=norm_budget)
    return handler(PanelQuery(**{"operations": (ADD,), "k": K, **query}))


def toy(**values: Any) -> ToyRecommender:
    return ToyRecommender(**{"stored": STORED, **values})


def alone(library: Library, user: str, recommender: ToyRecommender, norm_budget: float = 10.0) -> Any:
    preview = PreviewHandler(library, recommender, norm_budget=norm_budget)
    return preview(PreviewQuery((ADD,), "toy", Subject(user), k=K))


@pytest.mark.parametrize("interests", [1, 3])
def test_a_panel_is_the_sum_of_its_users_alone(library: Library, interests: int) -> None:
    recommender = toy(rows="interest" if interests > 1 else "subject", interests=interests)
    found = panel(library, recommender)
    each = [alone(library, user, recommender) for user in STORED]
    assert found.users == len(each)
    assert found.users_changed == sum(
        [one.item.item_id for one in e.after] != [one.item_id for one in e.before] for e in each
    )
    assert found.users_changed > 0
    assert found.overlap.value == pytest.approx(np.mean([one.overlap for one in each]))
    assert found.entered.value == pytest.approx(np.mean([len(one.entered) for one in each]))
    assert all(len(one.entered) == len(one.left) for one in each)
    stayed = [one.moved for one in each if one.overlap]
    assert found.moved.value == pytest.approx(np.mean(stayed))
    shown = [{one.item_id for e in each for one in e.before}, {one.item.item_id for e in each for one in e.after}]
    assert found.coverage is not None
    assert (found.coverage.before, found.coverage.after) == pytest.approx([len(one) / ITEMS for one in shown])
    shares = [one.receipt.delta_share for one in each]
    if interests == 1:  # the receipt of several rows is that of the longest change, not of the largest share
        assert (found.delta_share.low, found.delta_share.high) == pytest.approx((min(shares), max(shares)))
    assert not found.refused


def test_shares_are_those_of_the_lists_and_pairs_and_groups_are_not_off_target(library: Library) -> None:
    found = panel(library, facet="genre=Horror")
    each = [alone(library, user, toy()) for user in STORED]
    items = catalogue()

    def share(facet: str, after: bool) -> float:
        carry = {IDS[item] for item in items.members(items.facet_index[facet])}
        listed = [[one.item.item_id for one in e.after] if after else [one.item_id for one in e.before] for e in each]
        return float(np.mean([np.mean([item in carry for item in one]) for one in listed]))

    assert found.target_share is not None
    assert found.target_share.before == pytest.approx(share("genre=Horror", False))
    assert found.target_share.after == pytest.approx(share("genre=Horror", True))
    assert {one.facet for one in found.off_target} == {"genre=War", "year=1999"}
    for one in found.off_target:
        assert one.share.after - one.share.before == pytest.approx(share(one.facet, True) - share(one.facet, False))
        assert one.share.difference.low <= one.share.difference.value <= one.share.difference.high
    sizes = [abs(one.share.difference.value) for one in found.off_target]
    assert sizes == sorted(sizes, reverse=True)
    assert found.popularity is not None
    place = {item: at / (ITEMS - 2) for at, item in enumerate(IDS[:-1])}
    means = [[np.mean([place[i.item_id] for i in e.before if i.item_id in place])] for e in each]
    assert found.popularity.before == pytest.approx(float(np.mean(means)))


def test_hidden_items_are_sought_by_those_who_had_others_and_had_them_once(library: Library) -> None:
    recommender = toy()
    found = panel(library, recommender)
    usable = {user: items for user, items in STORED.items() if len(items) > 1 and items[-1] not in items[:-1]}
    assert len(usable) == len(STORED) - 2
    (asked,) = [one for name, one in recommender.calls if name == "embed_subjects"]
    assert {(one.user_id, one.history) for one in asked} == {(user, items[:-1]) for user, items in usable.items()}
    loaded = library.model("toy")
    move = loaded.basis.p95[3] * ADD.value * loaded.sae.w_dec[3]
    gains = []
    for items in usable.values():
        x = recommender.of(Subject("", items[:-1]))
        for rows in (x, (x + move).astype(np.float32)):
            gains.append(gain(recommender, rows, items))
    assert found.ndcg is not None
    assert found.ndcg.before == pytest.approx(np.mean(gains[::2]))
    assert found.ndcg.after == pytest.approx(np.mean(gains[1::2]))
    assert found.ndcg.before > 0
    assert panel(library, toy(ignores_history=True)).ndcg is None
    assert panel(library, toy(stored={"a": IDS[:1], "b": IDS[1:2]})).ndcg is None


def gain(recommender: ToyRecommender, rows: Floats, items: tuple[str, ...]) -> float:
    scores = recommender.scores(rows)
    scores[[IDS.index(item) for item in items[:-1]]] = -np.inf
    rank = int((scores >= scores[IDS.index(items[-1])]).sum())
    return 1 / np.log2(rank + 1) if rank <= K else 0.0


def test_rows_over_the_norm_budget_stay_as_they_are_and_are_counted(library: Library) -> None:
    recommender = toy(rows="interest", interests=3)
    shares = sorted(alone(library, user, recommender).receipt.delta_share for user in STORED)
    budget = shares[len(shares) // 2]
    found = panel(library, recommender, norm_budget=budget)
    assert set(found.refused) == {"over_norm_budget"}
    assert 0 < found.refused["over_norm_budget"] < 3 * len(STORED)
    assert found.delta_share.high <= budget * (1 + 1e-6)
    each = [alone(library, user, recommender, budget) for user in STORED]
    assert found.overlap.value == pytest.approx(np.mean([one.overlap for one in each]))


def test_examples_are_the_users_whose_lists_changed_most(library: Library) -> None:
    found = panel(library)
    each = {user: alone(library, user, toy()) for user in STORED}
    least = sorted(one.overlap for one in each.values())[:3]
    assert [each[one.user_id].overlap for one in found.examples] == least
    for one in found.examples:
        assert list(one.before) == list(each[one.user_id].before)
        assert [(moved.item.item_id, moved.rank_before) for moved in one.after] == [
            (moved.item.item_id, moved.rank_before) for moved in each[one.user_id].after
        ]
    nothing = panel(library, operations=(Operation("c-toy-3", OperationKind.SCALE, 1.0),))
    assert (nothing.users_changed, nothing.examples, nothing.off_target) == (0, [], [])
    assert nothing.overlap == Estimate(1.0, 1.0, 1.0)


def test_users_are_named_or_listed_page_by_page_and_a_segment_goes_where_attributes_are(library: Library) -> None:
    recommender = toy()
    assert panel(library, recommender, who=Who(most=5)).users == 5
    pages = [one for name, one in recommender.calls if name == "users"]
    assert [(one.limit, one.cursor, one.model_version) for one in pages] == [
        (5, "", MODEL_VERSION), (2, "3", MODEL_VERSION),
    ]  # fmt: skip
    recommender = toy()
    assert panel(library, recommender, who=Who(segment=Equals("letter", "b"))).users == 10
    assert embedded(recommender) == {user for user in STORED if user[0] == "b"}
    recommender = toy()
    assert panel(library, recommender, who=Who(("b-3", "a-2", "b-1"), most=2)).users == 2
    assert embedded(recommender) == {"b-3", "a-2"}
    assert not [one for name, one in recommender.calls if name == "users"]


def embedded(recommender: ToyRecommender) -> set[str]:
    """Users read out of the store."""
    return {one[1].user_id for name, one in recommender.calls if name == "embed" and one[1].history is None}


@pytest.mark.parametrize(
    ("query", "words", "error"),
    [
        ({"who": Who(("a-0",))}, "1 users were asked for; a panel takes 2 to 2,000", InvalidRequestError),
        ({"who": Who(())}, "0 users were asked for", InvalidRequestError),
        ({"who": Who(most=2_001)}, "2,001 users were asked for", InvalidRequestError),
        ({"who": Who(("a-0", "b-1", "a-0"))}, "names 1 users twice", InvalidRequestError),
        ({"who": Who(("a-0", ""))}, "empty user id", InvalidRequestError),
        ({"who": Who(("a-0", "nobody"))}, "'nobody' is not in the history store", NotFoundError),
        ({"who": Who(segment=Equals("letter", "z"))}, "0 users match the segment", FailedPreconditionError),
        ({"who": Who(segment=Equals("", "z"))}, "attribute name", InvalidRequestError),
        ({"k": 101}, "at most 100", InvalidRequestError),
        ({"operations": ()}, "operations", InvalidRequestError),
        ({"operations": (replace(ADD, concept_id="c-gone"),)}, "no live concept", InvalidRequestError),
        ({"policy_id": "p-1"}, "one or the other", InvalidRequestError),
        ({"facet": "genre=Wr"}, "there are e.g. genre=Horror, genre=War", NotFoundError),
        ({"deadline": Deadline.after(-1)}, "ran out", DeadlineExceededError),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(
    library: Library, query: dict[str, Any], words: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=words):
        panel(library, **query)


def test_a_recommender_that_lists_everybody_whatever_the_segment_is_found_out(library: Library) -> None:
    with pytest.raises(FailedPreconditionError, match="does not read segments"):
        panel(library, toy(reads_segments=False), who=Who(segment=Equals("letter", "b")))
    recommender = toy()
    handler = PreviewPanelHandler(library, recommender, no_policy, norm_budget=10.0)
    for _ in range(2):
        handler(PanelQuery((ADD,), who=Who(segment=Equals("letter", "b"))))
    asked = [page.segment for name, page in recommender.calls if name == "users"]
    assert asked.count(AllOf(())) == 1, "whoever is found to read them is not asked again"


def test_pairs_are_refused_and_hooks_that_can_only_be_read(library: Library, tmp_path: Path) -> None:
    with pytest.raises(FailedPreconditionError, match="preview users one by one"):
        panel(library, toy(rows="pair"))
    read_only = library_of(tmp_path, {"toy": publish(tmp_path, "toy", steerable=False)})
    with pytest.raises(FailedPreconditionError, match="can only be read"):
        panel(read_only)


def test_without_a_catalogue_facets_and_popularity_are_not_told_and_the_rest_is(bare: Library) -> None:
    found = panel(bare)
    assert (found.facet, found.target_share, found.off_target, found.popularity) == ("", None, [], None)
    assert found.coverage is not None
    assert found.ndcg is not None
    with pytest.raises(FailedPreconditionError, match="keeps no facets"):
        panel(bare, facet="genre=Horror")


def test_a_stored_policy_is_tried_as_it_is_for_whoever_is_named(library: Library) -> None:
    draft = PolicyDraft("more", "toy", (ADD,), window=Window(end=1e9))
    stored = new_policy(draft, actor="me", now=0.0)
    found = panel(library, policy=lambda _: stored, policy_id=stored.id, operations=())
    assert found == panel(library)
    with pytest.raises(InvalidRequestError, match="steers model toy, not other"):
        panel(library, policy=lambda _: stored, policy_id=stored.id, operations=(), model="other")
    with pytest.raises(NotFoundError):
        panel(library, policy_id="p-gone", operations=())


@dataclass(frozen=True)
class Forgetful(ToyRecommender):
    """Lists users who are gone when they are read, and others of another version."""

    version: str = MODEL_VERSION

    def embed(self, model: str, subject: Subject, deadline: Deadline, candidates: Any = ()) -> Reading:
        if subject.user_id.startswith("b"):
            raise NotFoundError("gone")
        return replace(super().embed(model, subject, deadline, candidates), model_version=self.version)


def test_users_who_are_gone_since_they_were_listed_are_left_out_and_another_version_is_refused(
    library: Library,
) -> None:
    assert panel(library, Forgetful(stored=STORED)).users == 10
    with pytest.raises(FailedPreconditionError, match="every user of the panel is gone"):
        panel(library, Forgetful(stored={user: items for user, items in STORED.items() if user[0] == "b"}))
    with pytest.raises(FailedPreconditionError, match="serves version bbbb"):
        panel(library, Forgetful(stored=STORED, version="bbbb"))


def test_the_result_does_not_hang_on_the_size_of_batches(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = panel(library)
    monkeypatch.setattr("recsae_interpreter.handlers.panel_users._READINGS_AT_ONCE", 3)
    monkeypatch.setattr("recsae_interpreter.handlers.panel_users._ITEMS_AT_ONCE", 5)
    parts = panel(library)
    assert parts.overlap == whole.overlap
    assert (parts.ndcg, parts.off_target, parts.examples) == (whole.ndcg, whole.off_target, whole.examples)


def test_items_are_numbered_as_they_come_and_keep_their_number() -> None:
    numbers = ItemNumbers()
    assert [numbers.of(ScoredItem(one, 0.0, one.upper())) for one in "cabac"] == [0, 1, 2, 1, 0]
    assert (numbers.ids, numbers.titles, len(numbers)) == (["c", "a", "b"], ["C", "A", "B"], 3)
