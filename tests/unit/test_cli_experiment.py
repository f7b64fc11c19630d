"""Whom an experiment asks, in what order of trust, and what becomes of calls that fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import numpy as np
import pytest
from rich.console import Console

from recsae.cli.experiment_record import Experiment
from recsae.cli.experiment_users import facets_of, users_to_ask
from recsae.cli.experiment_views import experiment_view
from recsae.cli.replay import Asked, Question, replay
from recsae.datasets.schema import Dataset, Histories, ItemTable, UserTable
from recsae.errors import FailedPreconditionError, InvalidRequestError, UnavailableError
from recsae.steering.arms import Arm, Place, Role, comparisons
from recsae.steering.policies import Scope
from recsae.steering.rollout import in_rollout
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc

N_ITEMS, N_USERS = 40, 400


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    random = np.random.default_rng(1)
    lengths = np.where(np.arange(N_USERS) % 10 == 0, 2, 6)  # every tenth has too few for a test item
    items = np.concatenate([1 + random.permutation(N_ITEMS)[:length] for length in lengths])
    return Dataset(
        "orders",
        ItemTable(
            tuple(f"i{item}" for item in range(1, N_ITEMS + 1)),
            tuple(f"Tale of {('sun', 'moon')[item % 2]}" for item in range(1, N_ITEMS + 1)),
            {"genre": tuple(("Horror", "Comedy")[item % 2] for item in range(1, N_ITEMS + 1))},
        ),
        UserTable(tuple(f"u{user}" for user in range(N_USERS)), {}),
        Histories(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            items.astype(np.int32),
            np.arange(len(items), dtype=np.float64),
        ),
    )


def test_users_are_asked_with_all_they_did_before_their_newest_item(dataset: Dataset) -> None:
    found = users_to_ask(dataset, Scope(), "salt", 50, 0)
    assert len(found.asked) == len({one.user_id for one in found.asked}) == 50
    for one, target in zip(found.asked, found.targets.tolist(), strict=True):
        *before, last = dataset.histories.of(dataset.users.ids.index(one.user_id)).tolist()
        assert list(one.item_ids) == [f"i{item}" for item in before]
        assert target == last


def test_a_small_rollout_is_asked_as_much_as_its_control(dataset: Dataset) -> None:
    scope = Scope(rollout_percent=20)
    inside = [in_rollout(20, "salt", one.user_id, "") for one in users_to_ask(dataset, scope, "salt", 60, 0).asked]
    assert (sum(inside), len(inside)) == (30, 60)
    everybody = users_to_ask(dataset, scope, "salt", 10_000, 0).asked
    assert len(everybody) == N_USERS * 9 // 10
    few = [one.user_id for one in users_to_ask(dataset, Scope(rollout_percent=1), "salt", 60, 0).asked]
    assert len(few) == 60  # what the rollout cannot fill, its control does
    assert sum(in_rollout(1, "salt", user, "") for user in few) == sum(
        in_rollout(1, "salt", one.user_id, "") for one in everybody
    )


def test_a_policy_that_names_users_is_asked_for_those_alone(dataset: Dataset) -> None:
    found = users_to_ask(dataset, Scope(user_ids=("u1", "u2", "stranger")), "salt", 50, 0)
    assert [one.user_id for one in found.asked] == ["u1", "u2"]
    with pytest.raises(FailedPreconditionError, match="whom the policy names"):
        users_to_ask(dataset, Scope(user_ids=("u0",)), "salt", 50, 0)  # u0 has two interactions


def test_facets_are_values_and_popularity_and_any_other_by_name(dataset: Dataset) -> None:
    plain = facets_of(dataset)
    families = {name.partition("=")[0] for name in plain.names}
    assert families == {"genre", "popularity"}
    assert plain.matrix.shape == (N_ITEMS + 1, len(plain.names))
    assert not plain.matrix[0].any()
    assert plain.matrix[1:, plain.names.index("genre=Horror")].sum() == N_ITEMS / 2
    named = facets_of(dataset, ["title=moon"])
    assert named.names[0] == "title=moon"
    assert set(named.names[1:]) == set(plain.names)
    with pytest.raises(InvalidRequestError, match=r"genre=Horrors.*of genre, .*e\.g\. genre=Comedy, genre=Horror$"):
        facets_of(dataset, ["genre=Horrors"])


class Recommender(recommender_pb2_grpc.RecommenderServicer):
    """Applies policy p-1 to users with an even number, holds it back from others; knows how to be wrong."""

    def __init__(self, fails: Callable[[str], grpc.StatusCode | None]) -> None:
        self.fails = fails
        self.asked: list[tuple[str, bool]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def Recommend(
        self, request: recommender_pb2.RecommendRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.RecommendResponse:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.asked.append((request.user_id, request.without_steering))
        try:
            code = self.fails(request.user_id)
            if code is not None:
                context.abort(code, "as told")
            ref = [common_pb2.PolicyRef(policy_id="p-1", revision=2)]
            even = int(request.user_id[1:]) % 2 == 0
            receipt = common_pb2.Receipt(reason=common_pb2.UNSTEERED_REASON_NONE_MATCHED)
            if request.without_steering:
                receipt = common_pb2.Receipt(reason=common_pb2.UNSTEERED_REASON_NOT_WANTED)
            elif even:
                receipt = common_pb2.Receipt(applied=ref)
            elif int(request.user_id[1:]) % 4 == 1:
                receipt.held_out.extend(ref)
                if request.user_id in ("u1", "u5"):
                    receipt.reason = common_pb2.UNSTEERED_REASON_UNSPECIFIED
                    receipt.applied.add(policy_id="p-2", revision=1)
            ids = ["i2", "stranger"] if even and not request.without_steering else ["i1"]
            return recommender_pb2.RecommendResponse(
                items=[common_pb2.ScoredItem(item_id=one, score=-at) for at, one in enumerate(ids)], receipt=receipt
            )
        finally:
            with self.lock:
                self.at_once -= 1


Serve = Callable[[Callable[[str], grpc.StatusCode | None]], tuple[Recommender, recommender_pb2_grpc.RecommenderStub]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[tuple[grpc.Server, grpc.Channel]] = []

    def start(
        fails: Callable[[str], grpc.StatusCode | None],
    ) -> tuple[Recommender, recommender_pb2_grpc.RecommenderStub]:
        server, servicer = grpc.server(futures.ThreadPoolExecutor(32)), Recommender(fails)  # type: ignore[abstract]  # Rank is not asked for
        recommender_pb2_grpc.add_RecommenderServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        running.append((server, grpc.insecure_channel(f"127.0.0.1:{port}")))
        return servicer, recommender_pb2_grpc.RecommenderStub(running[-1][1])

    yield start
    for server, opened in running:
        opened.close()
        server.stop(None)


QUESTION = Question("m", "p-1", 3, timeout_s=20)
INDEX = {"i1": 1, "i2": 2}
USERS = [Asked(row, f"u{row}", ["i1"]) for row in range(40)]


def test_users_in_arms_are_asked_twice_and_others_once(serve: Serve) -> None:
    servicer, stub = serve(lambda _user: None)
    done: list[int] = []
    found = replay(stub.Recommend, QUESTION, USERS, INDEX, concurrency=3, on_done=done.append)
    applied, held_out = Place(Role.APPLIED, 2), Place(Role.HELD_OUT, 2)
    assert found.rows == {applied: list(range(0, 40, 2)), held_out: list(range(1, 40, 4))}
    assert found.outside == {"none_matched": 10}
    assert len(servicer.asked) == 40 + 30
    assert sum(without for _, without in servicer.asked) == 30
    assert [one.items[0].tolist() for one in found.steered[applied]] == [[2, 0, 0]] * 20
    assert found.steered[applied][0].scores[0].tolist() == [0.0, -1.0, -np.inf]
    assert [one.items[0].tolist() for one in found.bare[applied]] == [[1, 0, 0]] * 20
    assert found.others == {Role.APPLIED: 0, Role.HELD_OUT: 2}
    assert sum(done) == 40
    assert servicer.most_at_once <= 3


def test_a_user_whose_call_fails_is_left_out_and_counted(serve: Serve) -> None:
    _, stub = serve(lambda user: grpc.StatusCode.DEADLINE_EXCEEDED if user in ("u3", "u4") else None)
    found = replay(stub.Recommend, QUESTION, USERS, INDEX)
    assert found.outside["call_failed: deadline_exceeded"] == 2
    assert 4 not in found.rows[Place(Role.APPLIED, 2)]


def test_a_recommender_that_fails_every_call_is_not_asked_for_all_users(serve: Serve) -> None:
    servicer, stub = serve(lambda _user: grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(UnavailableError, match="as told"):
        replay(stub.Recommend, QUESTION, USERS, INDEX, concurrency=2)
    assert len(servicer.asked) == 8


def test_a_comparison_that_found_nothing_is_a_sentence_and_no_empty_table() -> None:
    same = np.tile([0.1, 0.2], (20, 1))
    arms = {Place(Role.SHADOW, 3): Arm(same, same)}
    found = Experiment("p-1", "log", ("genre=Horror", "genre=War"), 0, arms, comparisons(arms), {}, [])
    console = Console(width=200)
    with console.capture() as shown:
        console.print(experiment_view(found, [], 10))
    text = shown.get()
    assert "beside what was served (revision 3, 20 users): no facet of 2 changed beyond chance." in text
    assert "would be" not in text
