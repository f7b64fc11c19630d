"""The command over a platform with several models and hooks: layers, explanations of several rows, addresses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.integration.interpreter.conftest import (
    DIM,
    GENRES,
    MAX_HISTORY,
    MODEL,
    N_ITEMS,
    N_USERS,
    WIDTH,
    Published,
    publish_triple,
)
from tests.integration.interpreter.made_models import INTERESTS, publish_made

from recsae.cli import app as cli
from recsae.cli.output import console, errors
from recsae.cli.workspace import DatasetEntry, ModelEntry, Workspace
from recsae.concepts.features import Windows
from recsae.concepts.probe_set import ProbeSet
from recsae.store.artifacts import ArtifactStore

Start = Callable[..., Any]
PROBE_ROWS, SEED = 300, 20


class Outcome(NamedTuple):
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def probe_set() -> ProbeSet:
    """Histories of three to eight items, without users. What a model makes of them is read again, so it is left 0."""
    random = np.random.default_rng(5)
    lengths = random.integers(3, MAX_HISTORY + 1, PROBE_ROWS)
    ends = np.cumsum(lengths)
    items = random.integers(1, N_ITEMS + 1, int(ends[-1])).astype(np.int32)
    ids = tuple(f"i-{item}" for item in range(1, N_ITEMS + 1))
    nothing = np.zeros((PROBE_ROWS, DIM), np.float32)
    return ProbeSet(nothing, Windows(items, ends - lengths, ends), ids, np.zeros((0, DIM), np.float32))


@pytest.fixture
def recsae(
    start_interpreter: Start,
    start_recommender: Start,
    point: Start,
    published: Published,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Outcome]:
    """The command in a workspace with a model of interests, its second hook, and a model of pairs, all served."""
    store = ArtifactStore(str(published.root))
    versions = publish_made(store, tmp_path_factory)
    # The second hook doubles the first one's rows and has the same directions, so that every concept corresponds.
    for address, hook in (("several", "first"), ("several@second", "second"), ("pairs", "pair")):
        triple = publish_triple(
            store,
            tmp_path_factory,
            versions[address.partition("@")[0]],
            SEED,
            model=address,
            hook=hook,
            steerable="@" not in address,
            probe=probe_set(),
        )
        point(triple, address)
    home = tmp_path / "workspace"
    workspace = Workspace(home)
    for name, version in versions.items():
        workspace.add_model(ModelEntry(name, version))
    (home / "artifacts").symlink_to(published.root)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "note.txt").write_text("no run of these tests reads it")
    data = store.publish("dataset", tmp_path / "data", config={}, lineage={})
    workspace.add_dataset(DatasetEntry("orders", data, str(tmp_path / "data")))
    served = ",".join(f"{name}={version}" for name, version in versions.items())
    recommender = f"127.0.0.1:{start_recommender(models=served).server.port}"
    interpreter = f"127.0.0.1:{start_interpreter(recommenders=recommender).server.port}"
    monkeypatch.setattr(console, "width", 240)
    monkeypatch.setattr(errors, "width", 40)
    capsys.readouterr()

    def run(*arguments: str) -> Outcome:
        where = ["--home", str(home), "--recommender", recommender, "--interpreter", interpreter]
        monkeypatch.setattr(sys, "argv", ["recsae", *where, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        code = end.value.code
        out, err = capsys.readouterr()
        # Servers of this process log on the same output.
        return Outcome(code if isinstance(code, int) else 0, "\n".join(_said(out)), err)

    return run


def _said(out: str) -> list[str]:
    return [line for line in out.splitlines() if "] call_" not in line and "] plan" not in line]


def test_layers_show_their_saes_and_which_concepts_correspond(recsae: Callable[..., Outcome]) -> None:
    found = recsae("concepts", "layers", "several", "--json")
    assert found.code == 0, found.err
    first, second = found.json["layers"]
    assert (first["address"], second["address"]) == ("several", "several@second")
    assert (first["d"], first["width"], first["steerable"], second["steerable"]) == (DIM, WIDTH, True, False)
    assert second["ndcg10_kept"] is None
    assert first["live"] == first["verified"] == WIDTH - 1
    (pair,) = found.json["pairs"]
    assert pair["rows"] == PROBE_ROWS
    for side in pair["sides"]:
        assert side["judged"] > 10
        assert side["share"] == 1.0
        assert side["by_chance"] < 0.2
        assert side["alone"] == []
        assert all(one["counterpart"] == one["concept"] for one in side["shared"])
        assert all(one["correlation"] > 0.999 for one in side["shared"])
    shown = recsae("concepts", "layers", "several", "--limit", "3").out
    assert "Hooks of several" in shown
    assert "first and second, over 300 probe rows" in shown
    assert "verified concepts of first (100.0 %) fire with one of second at r >= .5; by chance" in shown
    assert "3 of " in shown


def test_a_hook_without_an_sae_is_named_with_how_to_get_one(recsae: Callable[..., Outcome]) -> None:
    alone = recsae("concepts", "layers", "pairs", "--channel", "candidate")
    assert alone.code == 1
    assert "no hook of model pairs has an SAE in candidate" in alone.err
    shown = recsae("concepts", "layers", "pairs")
    assert shown.code == 0
    assert "pair" in shown.out
    assert "probe rows" not in shown.out


def test_an_explanation_says_for_which_interests_and_candidates_a_concept_fires(recsae: Callable[..., Outcome]) -> None:
    interests = recsae("explain", "u-5", "--model", "several")
    assert interests.code == 0, interests.err
    assert f"{INTERESTS} interests" in interests.out
    assert "Where the scores come from" in interests.out
    pairs = recsae("explain", "u-5", "-m", "pairs", "--candidate", "i-2", "--candidate", "i-9", "--attribute", "age=60")
    assert "2 candidates" in pairs.out
    assert "Item 9" in pairs.out
    older = recsae("explain", "u-5", "-m", "pairs", "--candidate", "i-2", "--attribute", "age=60", "--json").json
    other = recsae("explain", "u-5", "-m", "pairs", "--candidate", "i-2", "--json").json
    assert older["items"][0]["item"]["score"] != other["items"][0]["item"]["score"]
    read_only = recsae("explain", "u-5", "-m", "several@second")
    assert "No items: hook second of model several@second can only be read" in read_only.out
    wrong = recsae("explain", "u-5", "-m", "pairs", "--attribute", "age")
    assert "'age' is not an attribute" in wrong.err


def test_a_preview_takes_candidates_and_says_how_many_rows_it_steered(recsae: Callable[..., Outcome]) -> None:
    command = ("preview", "u-5", "--op", f"c-{SEED}-3:add=1", "-m")
    assert f"of {INTERESTS} rows, where strongest" in recsae(*command, "several").out
    named = recsae(*command, "pairs", "--candidate", "i-2", "--candidate", "i-9", "--json").json
    assert {one["item_id"] for one in named["before"]} == {"i-2", "i-9"}
    assert named["rows"] == 2
    one = recsae(*command, "several")
    assert "stayed and moved" in one.out


def test_a_preview_of_many_users_is_told_in_tables_drawn_and_given_as_json(
    recsae: Callable[..., Outcome], tmp_path: Path
) -> None:
    users = ("--user", "u-5", "--user", "u-6", "--user", "u-7")
    command = ("preview", "--op", f"c-{SEED}-3:add=2", "-m", "several", *users)
    plot = tmp_path / "shares.svg"
    shown = recsae(*command, "--facet", GENRES[1], "--plot", str(plot))
    assert shown.code == 0, shown.err
    assert "Preview for 3 users of several" in shown.out
    assert f"share of {GENRES[1]}" in shown.out
    assert f"Drawn into {plot}." in shown.out
    assert f"{GENRES[1]} (target)" in plot.read_text()
    told = recsae(*command, "--k", "5", "--json").json
    assert (told["users"], told["facet"], len(told["examples"][0]["before"])) == (3, "genre=Horror", 5)
    listed = recsae("preview", "--users", "4", "--handle", "genre=Horror=0.5", "-m", "several", "--json").json
    assert (listed["users"], len(listed["off_target"]) <= 2) == (4, True)
    danes = recsae("preview", "--segment", "country=DK", "--handle", "genre=Horror=0.5", "-m", "several", "--json").json
    assert danes["users"] == len(range(0, N_USERS, 3))
    unread = recsae("preview", "--segment", "country=", "--op", f"c-{SEED}-3:add=2", "-m", "several")
    assert (unread.code, "segment" in unread.err) == (1, True)
    pairs = recsae("preview", "--users", "4", "--op", f"c-{SEED}-3:add=2", "-m", "pairs")
    assert "preview users one by one" in " ".join(pairs.err.split())


def test_models_are_listed_with_family_and_hooks(recsae: Callable[..., Outcome]) -> None:
    shown = recsae("model", "list").out
    rows = [line.split() for line in shown.splitlines()]
    assert ["several", "first", str(INTERESTS), "x", str(DIM), "interest", "yes"] in rows
    assert ["several@second", "second", str(INTERESTS), "x", str(DIM), "interest", "read-only"] in rows
    assert ["pairs", "pair", str(DIM), "user", "and", "candidate", "yes"] in rows
    several, pairs = recsae("model", "list", "--json").json
    assert (several["family"], [hook["name"] for hook in several["hooks"]]) == ("made", ["first", "second"])
    assert pairs["reads"]["attributes"][0]["name"] == "age"
    assert MODEL not in shown


def test_a_refresh_is_started_for_the_hook_an_address_names(recsae: Callable[..., Outcome]) -> None:
    def started(model: str, *more: str) -> dict[str, str]:
        done = recsae("refresh", "--model", model, "--data", "orders", "--no-wait", "--json", *more)
        assert done.code == 0, done.err
        config: dict[str, str] = done.json["config"]
        return config

    assert started("several@second")["model"] == "several@second"
    assert started("several@first")["model"] == "several"
    assert "several@second" in recsae("runs").out
    unknown = recsae("refresh", "--model", "several@third", "--data", "orders", "--no-wait")
    assert "no hook 'third'; its hooks are first, second" in unknown.err
    # The control is read at the hook of the model.
    control = recsae("refresh", "--model", "several@second", "--control", "pairs", "--data", "orders", "--no-wait")
    assert "model pairs has no hook 'second'; its hooks are pair" in control.err
