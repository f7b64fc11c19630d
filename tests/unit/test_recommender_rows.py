"""Requests of a model that scores pairs, and whom the recommender service reads about."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from recsae.datasets.attributes import AttributeValue
from recsae.errors import DeadlineExceededError, FailedPreconditionError, InvalidRequestError, UnavailableError
from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.description import AttributeInput, BundleDescription, Hook, Inputs
from recsae.recommenders.runtime import OnnxRecommender
from recsae.recommenders.synthetic import tiny_bundle, tiny_family_bundle
from recsae.rpc.batch_lane import BatchLane
from recsae.rpc.deadline import Deadline
from recsae.steering.matching import SteerContext
from recsae.steering.segments import Equals
from recsae.store.histories import MemoryHistoryStore
from recsae.store.histories import UserPage as StoredPage
from recsae.store.pseudonyms import pseudonym
from recsae.telemetry.metrics import RecommenderMetrics, new_registry
from recsae.telemetry.observing import Sample
from recsae_recommender.handlers import sources as sources_of_users
from recsae_recommender.handlers.export import ExportHandler, ExportQuery
from recsae_recommender.handlers.rank import RankHandler, RankQuery
from recsae_recommender.handlers.sources import GivenSubject, GivenSubjects, UserPage, given_sources, user_sources
from recsae_recommender.models import ModelTable, ServedModel
from recsae_recommender.pipeline import Job, ModelPipeline
from recsae_recommender.ranking import RankAsk
from recsae_recommender.settings import RecommenderSettings
from recsae_recommender.steering import ModelSteering
from recsae_recommender.subjects import SubjectReader

KEY = b"k" * 32


class CountingStore(MemoryHistoryStore):
    """Remembers what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.pages = 0

    def attributes(self, user_id: str) -> Mapping[str, AttributeValue]:
        self.asked.append(user_id)
        return super().attributes(user_id)

    def users(self, cursor: str, limit: int) -> StoredPage:
        self.pages += 1
        return super().users(cursor, limit)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> OnnxRecommender:
    return OnnxRecommender(tiny_family_bundle("din", tmp_path_factory.mktemp("din")))


def pipeline(recommender: OnnxRecommender, samples: list[Sample]) -> ModelPipeline:
    settings = RecommenderSettings(models=("x=y",), interpreter="")
    steering = ModelSteering(recommender, None, settings, RecommenderMetrics(new_registry()))
    return ModelPipeline(recommender, steering, samples.append)


def job(candidates: Sequence[int], exclude: Sequence[int] = ()) -> Job:
    ask = RankAsk(5, np.array(exclude, np.int64), np.array(candidates, np.int64))
    return Job(np.array([1, 2, 3]), SteerContext(), ask)


def test_a_request_whose_candidates_are_all_excluded_has_an_empty_list_alone_and_among_neighbours(
    pairs: OnnxRecommender,
) -> None:
    served = pipeline(pairs, [])
    empty, other = job([4, 5], exclude=[4, 5]), job([6, 7])
    assert served.serve([empty])[0].items.indices == []
    alone, beside = served.serve([other])[0].items, served.serve([empty, other])
    assert beside[0].items.indices == []
    assert beside[1].items.indices == alone.indices != []


def test_a_sample_that_waits_holds_its_own_row_alone(pairs: OnnxRecommender) -> None:
    samples: list[Sample] = []
    pipeline(pairs, samples).serve([job([4, 5, 6, 7])])
    (sample,) = samples
    assert sample.activation.shape == (pairs.hooks[0].dim,)
    assert sample.activation.base is None


def test_pairs_of_unequal_lists_are_ranked_as_each_list_alone(pairs: OnnxRecommender) -> None:
    ids = [["i1", "i2", "i3", "i9"], ["i7"], ["i5", "i4"]]
    rows = [pairs.embed_pairs(pairs.pad([[10, 11]]), pairs.bundle.index_of(own)[None]) for own in ids]
    crossing = [{name: one[0] for name, one in row.passthrough.items()} for row in rows]
    handler = RankHandler(ModelTable([ServedModel(pairs, None, SubjectReader(None))]))  # type: ignore[arg-type]
    together = handler(
        RankQuery(
            np.concatenate([row.activation[0] for row in rows]),
            {name: np.concatenate([one[name] for one in crossing]) for name in crossing[0]},
            candidates=ids,
            exclude=[["i9"], [], []],
        )
    ).lists
    alone = [
        handler(RankQuery(row.activation[0], one, candidates=[names], exclude=[["i9"]])).lists[0]
        for row, one, names in zip(rows, crossing, ids, strict=True)
    ]
    assert together == alone
    assert [len(one.indices) for one in together] == [3, 1, 2]


def test_a_user_without_attributes_is_looked_up_once_and_no_list_of_users_is_read(tmp_path: Path) -> None:
    recommender, store = OnnxRecommender(tiny_bundle(tmp_path)), CountingStore()
    hidden = pseudonym(KEY, "somebody")
    store.append(hidden, ["i1"])
    SubjectReader(store, KEY).read(recommender, hidden, None)
    assert store.asked == [hidden]
    assert store.pages == 0


class FailingStore(CountingStore):
    """Gives no attributes."""

    def attributes(self, user_id: str) -> Mapping[str, AttributeValue]:
        raise UnavailableError("the store is away")


def test_a_store_without_its_attributes_fails_exports_and_no_recommendation() -> None:
    store = FailingStore()
    store.append("anna", ["i1"])
    reader, served = SubjectReader(store), attributes_alone()
    assert reader.read(served, "anna", None).attributes == {}
    with pytest.raises(UnavailableError):
        user_sources(served, reader, UserPage(), rows_per_user=1)
    with pytest.raises(UnavailableError):
        given_sources(served, reader, [GivenSubject([], "anna")])


def attributes_alone() -> OnnxRecommender:
    """Reads an attribute, neither histories nor users; has no graphs."""
    description = BundleDescription(
        "m",
        "test",
        4,
        9,
        "opaque",
        (Hook("h", "user", 2, all_positions=False),),
        inputs=Inputs(history=False, attributes=(AttributeInput("country", values=("DK",)),)),
    )
    items = tuple(f"i{number}" for number in range(1, 10))
    served = OnnxRecommender.__new__(OnnxRecommender)
    served.bundle = ModelBundle(Path(), "0", description, items, items)
    served._hooks = description.hooks
    return served


def test_users_of_a_model_that_reads_attributes_alone_are_those_with_any() -> None:
    store = CountingStore()
    for user in ("with", "without"):
        store.append(user, ["i1"])
    store.set_attributes("with", {"country": "DK"})
    sources, _ = user_sources(attributes_alone(), SubjectReader(store), UserPage(), rows_per_user=1)
    assert [(one.user_id, dict(one.attributes)) for one in sources] == [("with", {"country": "DK"})]


def danes_and_swedes(users: int, every: int) -> CountingStore:
    """Users in the order of their ids; each `every`th one is from Denmark, the others from Sweden."""
    store = CountingStore()
    for user in range(users):
        name = f"u{user:04}"
        store.append(name, ["i1"])
        store.set_attributes(name, {"country": "SE" if user % every else "DK"})
    return store


DANES = Equals("country", "DK")


@pytest.mark.parametrize("limit", [1, 3, 64])
@pytest.mark.parametrize("every", [1, 2, 40, 1_000])
def test_pages_of_a_segment_hold_everybody_in_it_once_and_nobody_else(every: int, limit: int) -> None:
    store = danes_and_swedes(200, every)
    reader, served = SubjectReader(store), attributes_alone()
    found: list[str] = []
    cursor, pages = "", 0
    while True:
        sources, cursor = user_sources(served, reader, UserPage(cursor, limit, DANES), rows_per_user=1)
        assert len(sources) <= limit
        found += [one.user_id for one in sources]
        pages += 1
        if not cursor:
            break
    assert found == [f"u{user:04}" for user in range(0, 200, every)]
    assert pages <= 1 + len(found) / limit


def test_a_page_of_a_segment_looks_at_so_many_users_and_goes_on_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_of_users, "MOST_SCANNED", 30)
    store = danes_and_swedes(100, 1_000)
    reader, served = SubjectReader(store), attributes_alone()
    sources, cursor = user_sources(served, reader, UserPage("u0000", 20, DANES), rows_per_user=1)
    assert (sources, cursor, len(store.asked), store.pages) == ([], "u0030", 30, 1)
    with pytest.raises(DeadlineExceededError):
        user_sources(served, reader, UserPage("", 20, DANES), 1, Deadline.after(-1))


def test_a_segment_needs_a_store() -> None:
    with pytest.raises(FailedPreconditionError, match="no history store"):
        user_sources(attributes_alone(), SubjectReader(None), UserPage("", 20, DANES), rows_per_user=1)


def test_an_export_ends_with_the_time_of_its_caller(tmp_path: Path) -> None:
    recommender = OnnxRecommender(tiny_bundle(tmp_path))
    handler = ExportHandler(ModelTable([ServedModel(recommender, None, SubjectReader(None))]))  # type: ignore[arg-type]
    given = GivenSubjects([GivenSubject(["i1"])])
    assert len(handler(ExportQuery(given, deadline=Deadline.after(60))).activations) == 1
    with pytest.raises(DeadlineExceededError, match="ran out"):
        handler(ExportQuery(given, deadline=Deadline.after(-1)))


def test_what_crosses_the_cut_never_replaces_what_was_checked(tmp_path: Path) -> None:
    recommender = OnnxRecommender(tiny_bundle(tmp_path))
    x = recommender.embed(recommender.pad([[1, 2]])).activation
    expected = recommender.rank(x, k=5)
    found = recommender.rank(x, {"exclude": expected.items, "activation": -x, "k": np.array([1])}, k=5)
    assert found.items.tolist() == expected.items.tolist()


def test_pairs_without_candidates_are_refused(pairs: OnnxRecommender) -> None:
    with pytest.raises(InvalidRequestError, match="name the candidates"):
        pairs.rank(np.zeros((1, 0, pairs.hooks[0].dim), np.float32), k=3)


def test_every_item_is_ranked_the_same_however_many_pairs_are_held(
    pairs: OnnxRecommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = pairs.pad([[1, 2], [3], [4, 5, 6]])
    exclude = histories[:, :2]
    expected = pairs.recommend(histories, k=7, exclude=exclude)
    monkeypatch.setattr("recsae.recommenders.runtime._PAIRS_HELD", pairs.n_items * 2)
    found = pairs.recommend(histories, k=7, exclude=exclude)
    assert found.items.tolist() == expected.items.tolist()


class SlowStore(MemoryHistoryStore):
    """Lists its users once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.open = threading.Event(), threading.Event()

    def users(self, cursor: str, limit: int) -> StoredPage:
        self.asked.set()
        assert self.open.wait(10)
        return super().users(cursor, limit)


def test_calls_that_wait_for_the_list_of_users_leave_the_lane_to_the_others() -> None:
    lane, store = BatchLane("test", most_held=10).start(), SlowStore()
    store.append("anna", ["i1"])
    store.set_attributes("anna", {"country": "DK"})
    reader, served = SubjectReader(store, KEY, lane.aside), attributes_alone()
    found: list[object] = []
    try:
        for _ in range(2):
            lane.submit(lambda: found.append(reader.attributes(served, pseudonym(KEY, "anna"))))
        assert store.asked.wait(10)
        other = threading.Event()
        lane.submit(other.set)
        assert other.wait(5)
        store.open.set()
        assert lane.wait_idle(10)
        assert found == [{"country": "DK"}] * 2
    finally:
        store.open.set()
        lane.shutdown(wait=False)
