"""`recsae experiment` over a live platform: replayed users and the exposure log say what the policy really does."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.integration.interpreter.conftest import MODEL, N_ITEMS, Published

from recsae.cli import app as cli
from recsae.cli.output import console, errors
from recsae.cli.workspace import DatasetEntry, ModelEntry, Workspace
from recsae.datasets.schema import Dataset, Histories, ItemTable, UserTable, load_dataset, save_dataset
from recsae.exposures.reader import ExposureReader
from recsae.rpc.request import REQUEST_ID_KEY
from recsae.steering.rollout import in_rollout
from recsae.v1 import common_pb2, recommender_pb2, steering_pb2

Start = Callable[..., Any]
N_USERS = 160
GENRES = ("Horror", "Comedy", "Drama")


class Platform(NamedTuple):
    """The command, the services' stubs, the data set served, and the folder of exposures."""

    recsae: Callable[..., Any]
    recommender: Any
    steering: Any
    dataset: Dataset
    exposures: Path
    stop_recommender: Callable[[], None]


def _dataset() -> Dataset:
    random = np.random.default_rng(3)
    lengths = random.integers(4, 12, N_USERS)
    rows = [1 + random.permutation(N_ITEMS)[:length] for length in lengths]
    numbers = range(1, N_ITEMS + 1)
    items = ItemTable(
        tuple(f"i-{item}" for item in numbers),
        tuple(f"Item {item}" for item in numbers),
        {"genre": tuple(GENRES[item % len(GENRES)] for item in numbers)},
    )
    users = UserTable(
        tuple(f"u-{user}" for user in range(N_USERS)),
        {"country": tuple("SE" if user % 8 == 0 else "DK" for user in range(N_USERS))},
    )
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    histories = Histories(offsets, np.concatenate(rows).astype(np.int32), np.arange(lengths.sum(), dtype=np.float64))
    return Dataset("orders", items, users, histories)


@pytest.fixture
def platform(
    start_interpreter: Start,
    start_recommender: Start,
    promote: Callable[[int], int],
    stubs: Any,
    published: Published,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Platform:
    promote(0)
    folder, home, exposures = tmp_path / "orders", tmp_path / "workspace", tmp_path / "exposures"
    save_dataset(_dataset(), folder)
    workspace = Workspace(home)
    workspace.add_dataset(DatasetEntry("orders", "0" * 16, str(folder)))
    workspace.add_model(ModelEntry(MODEL, published.model_version, dataset="orders"))
    interpreter = start_interpreter()
    app = start_recommender(
        history=f"file:{folder}",
        interpreter=f"127.0.0.1:{interpreter.server.port}",
        exposures=exposures,
        exposure_sample=1,
    )
    addresses = [f"127.0.0.1:{one.server.port}" for one in (app, interpreter)]
    monkeypatch.setattr(console, "width", 160)
    monkeypatch.setattr(errors, "width", 400)

    def recsae(*arguments: str) -> Any:
        where = ["--home", str(home), "--recommender", addresses[0], "--interpreter", addresses[1]]
        monkeypatch.setattr(sys, "argv", ["recsae", *where, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        said = "\n".join(line for line in out.splitlines() if "] call_served" not in line and "] plan" not in line)
        assert end.value.code in (0, None), said + err
        return json.loads(said) if "--json" in arguments else said

    return Platform(
        recsae,
        stubs(app.server.port).recommender,
        stubs(interpreter.server.port).steering,
        load_dataset(folder),
        exposures,
        app.stop,
    )


def make(platform: Platform, name: str, *, shadow: bool = False, rollout: float = 50.0) -> steering_pb2.Policy:
    """A policy for Danes that has reached the recommender; one in shadow is about other concepts than a live one."""
    window = common_pb2.TimeWindow()
    window.end.FromSeconds(int(time.time()) + 3600)
    segment = common_pb2.Segment()
    segment.equals.attribute, segment.equals.value.text = "country", "DK"
    add = steering_pb2.OPERATION_KIND_ADD
    policy = steering_pb2.Policy(
        name=name,
        model=MODEL,
        operations=[
            steering_pb2.Operation(concept_id=f"c-0-{at}", kind=add, value=1.5) for at in ((3, 4) if shadow else (1, 2))
        ],
        scope=steering_pb2.Scope(rollout_percent=rollout, segment=segment),
        window=window,
        state=steering_pb2.POLICY_STATE_SHADOW if shadow else steering_pb2.POLICY_STATE_LIVE,
    )
    request = steering_pb2.CreatePolicyRequest(policy=policy, reason="a test")
    reply: steering_pb2.CreatePolicyResponse = platform.steering.CreatePolicy(request, timeout=20)
    deadline = time.monotonic() + 20
    while (
        platform.recommender.Recommend(
            recommender_pb2.RecommendRequest(user_id="u-1"), timeout=20, metadata=((REQUEST_ID_KEY, "replay-waiting"),)
        ).receipt.plan_revision
        < reply.plan_revision
    ):
        assert time.monotonic() < deadline, "the plan never arrived"
        time.sleep(0.01)
    return reply.policy


def danes(platform: Platform, policy: steering_pb2.Policy) -> tuple[list[str], list[str]]:
    """Danes in the rollout and held out."""
    users = [user for at, user in enumerate(platform.dataset.users.ids) if at % 8]
    inside = [user for user in users if in_rollout(50, policy.salt, user, "")]
    return inside, [user for user in users if user not in inside]


def test_replayed_users_are_in_the_arms_of_the_rollout_and_differences_are_those_of_their_lists(
    platform: Platform, tmp_path: Path
) -> None:
    policy = make(platform, "More of it")
    plot = tmp_path / "arms.svg"
    found = platform.recsae("experiment", policy.id, "--json", "--facet", "genre=Horror", "--plot", str(plot))
    inside, out = danes(platform, policy)
    assert {(one["arm"], one["revision"]): one["users"] for one in found["arms"]} == {
        ("applied", 1): len(inside),
        ("held_out", 1): len(out),
    }
    assert found["outside"] == {"none_matched": N_USERS // 8}
    by = {one["comparing"]: one for one in found["comparisons"]}
    assert list(by) == ["paired", "arms"]
    names = [one["name"] for one in by["paired"]["measures"]]
    assert names[:3] == ["hr@10", "ndcg@10", "genre=Horror"]
    assert "popularity=band 4 of 4" in names
    _check_by_hand(platform, by["paired"], inside)
    for one in by["paired"]["measures"]:
        assert one["low"] <= one["difference"] <= one["high"]
        assert one["difference"] == pytest.approx(one["after"] - one["before"])
    assert "genre=Horror" in plot.read_text()
    table = platform.recsae("experiment", policy.id, "--facet", "genre=Horror")
    for words in ("More of it", "held out", "in no arm: none matched", "ndcg@10", "genre=Horror", "95 %"):
        assert words in table


def _check_by_hand(platform: Platform, paired: Any, inside: list[str]) -> None:
    """HR@10 and the share of one facet, asked for again user by user."""
    dataset = platform.dataset
    genre = dict(zip(dataset.items.ids, dataset.items.columns["genre"], strict=True))
    sums = np.zeros((2, 2))
    for user in inside:
        items = dataset.histories.of(dataset.users.ids.index(user)).tolist()
        *history, target = [dataset.items.ids[item - 1] for item in items]
        for without in (False, True):
            reply = platform.recommender.Recommend(
                recommender_pb2.RecommendRequest(
                    user_id=user, history=common_pb2.History(item_ids=history), without_steering=without
                ),
                timeout=20,
            )
            ids = [item.item_id for item in reply.items]
            sums[int(without)] += [target in ids, sum(genre[one] == "Horror" for one in ids) / len(ids)]
    hits, _, horror = paired["measures"][:3]
    means = sums / len(inside)
    assert [hits["after"], hits["before"]] == pytest.approx(means[:, 0])
    assert [horror["after"], horror["before"]] == pytest.approx(means[:, 1])


def test_the_log_compares_what_was_shown_and_leaves_replayed_users_out(platform: Platform) -> None:
    policy = make(platform, "More of it")
    shadow = make(platform, "Not yet", shadow=True, rollout=100)
    for user in platform.dataset.users.ids:
        for _ in range(2):
            platform.recommender.Recommend(recommender_pb2.RecommendRequest(user_id=user), timeout=20)
    platform.recsae("experiment", policy.id, "--json", "--users", "20")
    platform.stop_recommender()  # the log is whole
    inside, out = danes(platform, policy)
    found = platform.recsae("experiment", policy.id, "--log", str(platform.exposures), "--json")
    assert {(one["arm"], one["revision"]): one["users"] for one in found["arms"]} == {
        ("applied", 1): len(inside),
        ("held_out", 1): len(out),
    }
    assert found["outside"]["none_matched"] == 2 * (N_USERS // 8)
    assert found["outside"]["replayed"] >= 20
    assert any("pseudonyms of one process" in note for note in found["notes"])
    (arms,) = found["comparisons"]
    genre = dict(zip(platform.dataset.items.ids, platform.dataset.items.columns["genre"], strict=True))
    shown = {
        arm: np.mean(
            [
                np.mean([genre[item] == "Horror" for item in one.item_ids])
                for one in ExposureReader(platform.exposures)
                if not one.request_id.startswith("replay-")
                and policy.id in [ref.policy_id for ref in getattr(one, arm)]
            ]
        )
        for arm in ("applied", "held_out")
    }
    (horror,) = [one for one in arms["measures"] if one["name"] == "genre=Horror"]
    assert [horror["after"], horror["before"]] == pytest.approx([shown["applied"], shown["held_out"]])
    would = platform.recsae("experiment", shadow.id, "--log", str(platform.exposures), "--json")
    assert [(one["arm"], one["users"]) for one in would["arms"]] == [("shadow", len(inside) + len(out))]
    assert [one["comparing"] for one in would["comparisons"]] == ["shadow"]
    (kept,) = would["shadow_overlap"]
    assert 0 < kept["low"] <= kept["mean"] <= kept["high"] <= 1
    assert "keeps" in platform.recsae("experiment", shadow.id, "--log", str(platform.exposures))


def test_a_policy_in_shadow_is_not_replayed_and_the_command_says_what_to_do(platform: Platform) -> None:
    policy = make(platform, "Not yet", shadow=True)
    with pytest.raises(AssertionError, match=r"in state shadow, .*--log"):
        platform.recsae("experiment", policy.id)
