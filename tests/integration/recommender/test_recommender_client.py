"""The pipeline's client against a real recommender: what it reads is what the models compute, whatever a row is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.unit.test_recommenders_export import pair_bundle

from recsae.errors import FailedPreconditionError
from recsae.pipeline import recommender_client
from recsae.pipeline.recommender_client import RecommenderClient
from recsae.pipeline.sources import CannotRankError, SourceModel, Subject
from recsae.recommenders.bundle import ModelBundle, publish_bundle
from recsae.recommenders.runtime import OnnxRecommender
from recsae.recommenders.synthetic import tiny_dataset, tiny_family_bundle
from recsae.rpc.client import channel
from recsae.store.artifacts import ArtifactStore
from recsae_recommender.app import RecommenderApp

Start = Callable[..., RecommenderApp]
FAMILIES = ("sasrec", "comirec", "bpr")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelBundle]:
    """Models whose rows are subjects (at two hooks), interests, users known by id, and pairs."""
    made = {name: tiny_family_bundle(name, tmp_path_factory.mktemp(name)) for name in FAMILIES}
    return made | {"pairs": pair_bundle(tmp_path_factory.mktemp("pairs"))}


@pytest.fixture
def client(start_recommender: Start, bundles: dict[str, ModelBundle], tmp_path: Path) -> Iterator[RecommenderClient]:
    store = ArtifactStore(str(tmp_path))
    versions = {name: publish_bundle(store, bundle.folder) for name, bundle in bundles.items()}
    models = ",".join(f"{name}={version}" for name, version in versions.items())
    app = start_recommender(artifacts=tmp_path, models=models)
    with channel(f"127.0.0.1:{app.server.port}") as opened:
        yield RecommenderClient(opened)


@pytest.fixture(scope="module")
def bare(bundles: dict[str, ModelBundle]) -> dict[str, OnnxRecommender]:
    return {name: OnnxRecommender(bundle) for name, bundle in bundles.items()}


def subjects(name: str) -> list[Subject]:
    """Some of the items each model knows, of several lengths; users of the pair model."""
    if name == "pairs":
        return [Subject(("i3", "i1", "i12"), "u2"), Subject(("i5",), "u1"), Subject(("i2", "i2", "i9", "i4"), "new")]
    data = tiny_dataset()
    histories = [data.histories.of(user)[:length] for user, length in ((0, 7), (1, 1), (2, 4), (3, 10))]
    return [Subject(tuple(f"i{item}" for item in items)) for items in histories]


def prefixes(given: list[Subject]) -> list[Subject]:
    return [Subject(one.history[: at + 1], one.user_id) for one in given for at in range(len(one.history))]


@pytest.mark.parametrize(
    ("address", "row_length"), [("sasrec", 16), ("sasrec@block_0", 16), ("comirec", 4 * 16), ("pairs", 6)]
)
def test_every_position_is_the_last_position_of_each_prefix(
    client: RecommenderClient, address: str, row_length: int
) -> None:
    model = client.describe(address)
    given = subjects(model.base)
    every, last = client.every_position(model, given), client.last_position(model, prefixes(given))
    assert every.shape == last.shape == (sum(len(one.history) for one in given), row_length)
    np.testing.assert_allclose(every, last, atol=1e-5)


def test_a_hook_is_described_by_its_address(client: RecommenderClient) -> None:
    first, block = client.describe("sasrec"), client.describe("sasrec@block_0")
    assert (first.name, first.hook, first.steerable, first.dot_product) == ("sasrec", "sequence", True, True)
    assert (block.name, block.hook, block.steerable, block.dot_product) == ("sasrec@block_0", "block_0", False, False)
    assert client.item_vectors(block) is None, "item vectors lie in the space of the first hook"
    pairs, interests = client.describe("pairs"), client.describe("comirec")
    assert (pairs.rows, pairs.reads_user_id, pairs.attributes) == ("pair", True, ("group", "age"))
    assert (interests.rows, interests.interests, interests.dot_product) == ("interest", 4, False)
    with pytest.raises(FailedPreconditionError, match="model sasrec has no hook 'middle'; its hooks are sequence, bl"):
        client.describe("sasrec@middle")
    with pytest.raises(FailedPreconditionError, match="'sequence' is the first hook of model sasrec"):
        client.describe("sasrec@sequence")


def test_interests_of_a_subject_lie_in_one_row_and_are_ranked_together(
    client: RecommenderClient, bare: dict[str, OnnxRecommender]
) -> None:
    model, recommender, given = client.describe("comirec"), bare["comirec"], subjects("comirec")
    embedded = recommender.embed(recommender.inputs([recommender.bundle.index_of(one.history) for one in given]))
    x = client.last_position(model, given)
    np.testing.assert_allclose(x, embedded.activation.reshape(len(given), -1), atol=1e-5)
    lists = client.rank(model, x.reshape(-1, model.dim), 5, [one.history for one in given])
    assert len(lists) == len(given)
    assert all(not set(ranked.item_ids) & set(one.history) for ranked, one in zip(lists, given, strict=True))
    (page,) = client.items(model)
    assert page.item_ids == client.item_ids(model)
    np.testing.assert_allclose(
        page.activations, client.last_position(model, [Subject((i,)) for i in page.item_ids]), atol=1e-5
    )


def test_pairs_cross_the_cut_with_all_candidates_and_are_ranked_from_there(
    client: RecommenderClient, bare: dict[str, OnnxRecommender], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one call, and in slices of candidates, of which the lists are laid together."""
    model, given = client.describe("pairs"), subjects("pairs")
    candidates = client.item_ids(model)
    whole = client.crossing(model, given, candidates)
    assert whole.activations.shape == (len(given) * len(candidates), model.dim)
    assert list(whole.passthrough) == ["doubled"]
    alone = [Subject((*one.history, candidate), one.user_id) for one in given for candidate in candidates]
    kept = [row for row, one in enumerate(alone) if len(one.history) <= model.max_history]
    np.testing.assert_allclose(
        whole.activations[kept], client.last_position(model, [alone[row] for row in kept]), atol=1e-5
    )
    exclude = [one.history for one in given]
    lists = client.rank(model, whole.activations, 4, exclude, candidates, whole.passthrough)
    scores = np.tanh(whole.activations).sum(axis=1) + whole.passthrough["doubled"]
    for row, ranked in enumerate(lists):
        mine = dict(zip(candidates, scores.reshape(len(given), -1)[row].tolist(), strict=True))
        best = sorted((item for item in candidates if item not in exclude[row]), key=lambda item: -mine[item])[:4]
        assert list(ranked.item_ids) == best
        np.testing.assert_allclose(ranked.scores, [mine[item] for item in best], atol=1e-5)
    monkeypatch.setattr(recommender_client, "_MAX_CANDIDATES", 5)
    sliced = client.crossing(model, given, candidates)
    np.testing.assert_array_equal(sliced.activations, whole.activations)
    np.testing.assert_array_equal(sliced.passthrough["doubled"], whole.passthrough["doubled"])
    assert client.rank(model, sliced.activations, 4, exclude, candidates, sliced.passthrough) == lists


def test_few_rows_at_once_make_the_same_answers(client: RecommenderClient) -> None:
    def short(model: SourceModel) -> SourceModel:
        return SourceModel(**{**vars(model), "max_rows": 9})

    for name in ("sasrec", "comirec", "pairs"):
        model, given = client.describe(name), subjects(name)
        np.testing.assert_array_equal(client.every_position(short(model), given), client.every_position(model, given))
        pages = list(client.items(short(model)))
        assert len(pages) > 1
        assert tuple(item for page in pages for item in page.item_ids) == client.item_ids(model)


def test_users_known_by_id_are_read_by_it_and_items_lie_in_their_space(
    client: RecommenderClient, bare: dict[str, OnnxRecommender]
) -> None:
    model, recommender = client.describe("bpr"), bare["bpr"]
    assert model.row_per_user
    assert model.items_beside_users
    users = [*recommender.bundle.user_ids[:3], "a stranger", "another"]
    x = client.last_position(model, [Subject(user_id=user) for user in users])
    np.testing.assert_allclose(x, recommender.embed(recommender.inputs([[]] * 5, users)).activation, atol=1e-6)
    np.testing.assert_array_equal(x[3], x[4])
    assert len(np.unique(x, axis=0)) == 4, "strangers are one and the same, and nobody else"
    items, vectors = list(client.items(model)), client.item_vectors(model)
    assert vectors is not None
    np.testing.assert_array_equal(np.concatenate([page.activations for page in items]), vectors.vectors)
    with pytest.raises(FailedPreconditionError, match="exports the last position only"):
        client.every_position(model, [Subject(user_id=users[0])])


def test_a_server_without_rank_is_told_from_one_that_fails() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    model = SourceModel("m", "v", "h", 2, 5, 3, 16, dot_product=False, all_positions=True)
    with channel(f"127.0.0.1:{port}") as opened:
        client = RecommenderClient(opened)
        with pytest.raises(CannotRankError, match="the recommender does not implement Rank"):
            client.rank(model, np.ones((1, 2), np.float32), 3, [()])
        with pytest.raises(FailedPreconditionError, match="does not implement what ExportItemsRequest asks for"):
            client.item_ids(model)
    server.stop(None)
