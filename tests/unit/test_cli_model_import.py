"""`recsae model import model.onnx`: the list of tensors, the command it proposes, and what that command does."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tests.unit import foreign_graphs as foreign

from recsae.cli import app as cli
from recsae.cli.output import console, errors
from recsae.cli.workspace import Workspace
from recsae.recommenders.bundle import ModelBundle
from recsae.store.pseudonyms import pseudonym

N_ITEMS, N_USERS = foreign.N_ITEMS, foreign.N_USERS


class Outcome(NamedTuple):
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Recsae = Callable[..., Outcome]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def recsae(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Recsae:
    """The command through its entry point, in a workspace of the test's own."""
    monkeypatch.setattr(console, "width", 120)
    monkeypatch.setattr(errors, "width", 120)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["recsae", "--home", str(home), *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        code = end.value.code
        return Outcome(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A network that reads the length of histories padded on the right."""
    inputs = {"item_seq": foreign.histories(), "item_seq_len": foreign.numbers()}
    return foreign.export(foreign.LastOfSequence(), tmp_path / "model.onnx", inputs)


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.json"
    titles = [f"Item {item}" for item in range(1, N_ITEMS + 1)]
    path.write_text(json.dumps({"ids": list(range(1, N_ITEMS + 1)), "titles": titles}))
    return path


def bundle(home: Path, name: str) -> ModelBundle:
    """The bundle a command published."""
    workspace = Workspace(home)
    return ModelBundle.from_artifact(workspace.artifacts().fetch("model", workspace.model(name).version))


def data_set(recsae: Recsae, tmp_path: Path, chains: int = N_ITEMS) -> None:
    """Users who walk from item to item; `chains` items in all, each of them bought."""
    rows = [f"u{user},{(user * 3 + step) % chains + 1},{step}" for user in range(60) for step in range(5)]
    path = tmp_path / "walks.csv"
    path.write_text("\n".join(["customer,sku,at", *rows]))
    columns = [word for pair in ("user=customer", "item=sku", "time=at") for word in ("--column", pair)]
    assert recsae("data", "import", str(path), *columns, "--name", "walks").code == 0


def test_without_a_tensor_those_there_are_come_as_a_table_with_the_next_command(
    recsae: Recsae, graph: Path, items: Path, home: Path
) -> None:
    listed = recsae("model", "import", str(graph))
    assert listed.code == 2
    assert "item_seq_len" in listed.out
    assert "length" in listed.out
    assert "★" in listed.out
    assert "[batch, 8]" in listed.out
    assert "nothing" in listed.out
    assert "is the last tensor that everything the scores depend on goes through" in listed.out
    assert Workspace(home).models() == []
    command = shlex.split(listed.out.strip().splitlines()[-1].strip())
    assert command[:3] == ["recsae", "--home", str(home)]
    assert command[-2:] == ["--items", str(items)]  # it lies beside the graph
    done = recsae(*command[3:])
    assert done.code == 0
    assert "Checked: trunk and head together give the scores of the original" in done.out
    assert "The head is a dot product." in done.out
    published = bundle(home, "model")
    assert (published.item_ids[:2], published.titles[1]) == (("1", "2"), "Item 2")


def test_the_list_is_json_for_scripts(recsae: Recsae, graph: Path) -> None:
    listed = recsae("model", "import", str(graph), "--json")
    assert listed.code == 2
    found: dict[str, Any] = json.loads(listed.out)
    assert [(one["name"], one["role"]) for one in found["inputs"]] == [
        ("item_seq", "history"),
        ("item_seq_len", "length"),
    ]
    assert found["scores"] == {"name": "scores", "shape": ["batch", N_ITEMS + 1]}
    names = [one["name"] for one in found["candidates"]]
    assert found["suggestion"]["name"] in names
    assert f"--activation {found['suggestion']['name']}" in found["next"]
    assert "--json" not in found["next"]


def test_a_graph_that_leaves_much_open_is_listed_all_the_same(recsae: Recsae, tmp_path: Path) -> None:
    inputs = {
        "history": foreign.histories(),
        "target": foreign.numbers(),
        "gender": foreign.numbers(),
        "age": torch.ones(2),
    }
    path = foreign.export(foreign.Pair(), tmp_path / "pair.onnx", inputs, free=(0, 1))
    listed = recsae("model", "import", str(path))
    assert listed.code == 2
    command = listed.out.strip().splitlines()[-1]
    assert "--items items.json" in command
    assert "--max-history 50" in command
    assert "--input gender=attribute:gender:values.json" in command
    assert "2 tensors" in listed.out or "3 tensors" in listed.out  # what else would cross, in numbers


def test_a_data_set_with_as_many_items_stands_in_for_the_list(
    recsae: Recsae, graph: Path, tmp_path: Path, home: Path
) -> None:
    data_set(recsae, tmp_path)
    command = shlex.split(recsae("model", "import", str(graph)).out.strip().splitlines()[-1].strip())
    assert command[-2:] == ["--data", "walks"]
    done = recsae(*command[3:], "--name", "walker")
    assert done.code == 0
    assert "on 60 histories of the data set" in done.out
    assert "item i of the graph is taken for item i of data set walks: both have 20" in done.out
    assert Workspace(home).model("walker").dataset == "walks"


def test_a_data_set_of_other_items_does_not(recsae: Recsae, graph: Path, tmp_path: Path) -> None:
    data_set(recsae, tmp_path, chains=11)
    tensor = json.loads(recsae("model", "import", str(graph), "--json").out)["suggestion"]["name"]
    refused = recsae("model", "import", str(graph), "--activation", tensor, "--data", "walks")
    assert refused.code == 1
    assert "21 scores per row, data set walks has 11 items" in refused.err
    assert "with --items" in refused.err


def test_users_are_published_by_pseudonym_unless_they_are_the_data_sets_already(
    recsae: Recsae, tmp_path: Path, home: Path, items: Path
) -> None:
    data_set(recsae, tmp_path)
    key = Workspace(home).pseudonym_key()
    users = ["u1", pseudonym(key, "u2"), "somebody", "u4", "u5", "u6", "u7"]
    (tmp_path / "users.json").write_text(json.dumps(users))
    path = foreign.export(foreign.Factors(), tmp_path / "factors.onnx", {"user_id": foreign.numbers()})
    tensor = json.loads(recsae("model", "import", str(path), "--json").out)["suggestion"]["name"]
    named = ("--activation", tensor, "--items", str(items), "--users", str(tmp_path / "users.json"))
    done = recsae("model", "import", str(path), *named, "--first-user", "0", "--data", "walks", "--json")
    assert done.code == 0, done.err
    assert "mean of those it knows" in " ".join(json.loads(done.out)["notes"])
    plain = ["u1", "u2", "somebody", "u4", "u5", "u6", "u7"]
    assert bundle(home, "factors").user_ids == tuple(pseudonym(key, user) for user in plain)


class Follows(torch.nn.Module):
    """Ranks the item after the newest one first, where histories end at the right."""

    def __init__(self) -> None:
        super().__init__()
        self.next = torch.nn.Parameter(torch.eye(N_ITEMS + 1).roll(1, dims=1) + 0.01)
        self.middle = torch.nn.Parameter(torch.eye(N_ITEMS + 1))

    def forward(self, sessions: torch.Tensor) -> torch.Tensor:
        newest = torch.nn.functional.embedding(sessions[:, -1], self.middle)
        scores: torch.Tensor = newest @ self.next
        return scores


def test_reading_histories_the_wrong_way_round_raises_a_doubt(recsae: Recsae, tmp_path: Path, items: Path) -> None:
    data_set(recsae, tmp_path)
    path = foreign.export(Follows(), tmp_path / "follows.onnx", {"sessions": foreign.histories()}, drawn=False)
    tensor = json.loads(recsae("model", "import", str(path), "--json").out)["suggestion"]["name"]
    command = ("model", "import", str(path), "--activation", tensor, "--items", str(items), "--data", "walks", "--json")
    doubted = json.loads(recsae(*command).out)["notes"]
    doubt = "with --padding left the next items of 60 histories would rank at place 1 (median)"
    assert any(doubt in note for note in doubted)
    assert not any("would rank" in one for one in json.loads(recsae(*command, "--padding", "left").out)["notes"])


def test_items_in_another_order_raise_a_doubt(recsae: Recsae, tmp_path: Path) -> None:
    data_set(recsae, tmp_path)
    (tmp_path / "backwards.json").write_text(json.dumps(list(range(N_ITEMS, 0, -1))))
    path = foreign.export(Follows(), tmp_path / "follows.onnx", {"sessions": foreign.histories()}, drawn=False)
    tensor = json.loads(recsae("model", "import", str(path), "--json").out)["suggestion"]["name"]
    named = ("--activation", tensor, "--items", str(tmp_path / "backwards.json"), "--padding", "left")
    notes = json.loads(recsae("model", "import", str(path), *named, "--data", "walks", "--json").out)["notes"]
    assert any("of 20 (median), no better than by chance" in note for note in notes)


def test_a_bundle_in_a_folder_takes_no_option_about_a_graph(recsae: Recsae, tmp_path: Path) -> None:
    refused = recsae("model", "import", str(tmp_path), "--activation", "x")
    assert refused.code == 1
    assert "is a folder with a bundle; options about a single graph do not apply" in refused.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2", "cannot be read as JSON"),
        ("[]", "needs a list of ids"),
        ("[1, 1]", "has the id '1' more than once"),
        ('{"ids": [1, 2], "titles": ["a"]}', "has 2 ids and 1 titles"),
        ("[1.5]", "must be a list of texts or whole numbers"),
    ],
)
def test_lists_of_ids_are_checked(recsae: Recsae, graph: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "items.json").write_text(content)
    tensor = json.loads(recsae("model", "import", str(graph), "--json").out)["suggestion"]["name"]
    refused = recsae("model", "import", str(graph), "--activation", tensor, "--items", str(tmp_path / "items.json"))
    assert refused.code == 1
    assert message in " ".join(refused.err.split())


def test_the_published_model_ranks_as_the_network(recsae: Recsae, graph: Path, items: Path, home: Path) -> None:
    from recsae.recommenders.runtime import OnnxRecommender

    tensor = json.loads(recsae("model", "import", str(graph), "--json").out)["suggestion"]["name"]
    assert recsae("model", "import", str(graph), "--activation", tensor, "--items", str(items), "--name", "m").code == 0
    recommender = OnnxRecommender(bundle(home, "m"))
    ranked = recommender.recommend(recommender.inputs([[3, 1, 4]]), k=N_ITEMS)
    from recsae.recommenders.graph import open_session

    feed = {"item_seq": np.array([[3, 1, 4, 0, 0, 0]]), "item_seq_len": np.array([3])}
    scores = open_session(graph, threads=1).run(["scores"], feed)[0][0, 1:]
    assert ranked.items[0].tolist() == (1 + np.argsort(-scores, kind="stable")).tolist()
