"""What people read and write about subjects of several rows, hooks and the attributes of a request."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from recsae.cli.context import Platform
from recsae.cli.explain_views import explanation
from recsae.cli.model_views import model_records, model_tables
from recsae.cli.subjects import attribute_values
from recsae.cli.workspace import ModelEntry, Workspace
from recsae.errors import DeadlineExceededError, FailedPreconditionError, InvalidRequestError
from recsae.recommenders.bundle import publish_bundle
from recsae.recommenders.synthetic import tiny_bundle
from recsae.rpc.client import ClientOptions
from recsae.v1 import common_pb2, interpreter_pb2, steering_pb2


def text_of(view: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=220).print(view)
    return out.getvalue()


def firing(label: str, **where: list[int] | list[str]) -> interpreter_pb2.Firing:
    return interpreter_pb2.Firing(concept_id=f"c-{label}", label=label, strength=1.0, **where)  # type: ignore[arg-type]


def row(explainable: bool = True, **which: int | str) -> interpreter_pb2.ExplainedRow:
    return interpreter_pb2.ExplainedRow(explainable=explainable, unexplained_share=0.25, **which)  # type: ignore[arg-type]


def test_interests_are_counted_from_one_and_those_left_out_are_named() -> None:
    shown = text_of(
        explanation(
            interpreter_pb2.ExplainResponse(
                firings=[firing("Horror", interests=[0, 2]), firing("Comedy", interests=[2])],
                rows=[row(interest=0), row(False, interest=1), row(interest=2)],
                rows_left_out=1,
                explainable=True,
                unexplained_share=0.1,
            )
        )
    )
    assert "1, 3" in shown
    assert "3 interests" in shown
    assert "1 of 3 left out" in shown
    assert "25.0 %" in shown


def test_of_many_candidates_the_first_few_are_named_by_title() -> None:
    ids = [f"i-{number}" for number in range(1, 6)]
    item = common_pb2.ScoredItem(item_id="i-1", title="Alien")
    shown = text_of(
        explanation(
            interpreter_pb2.ExplainResponse(
                firings=[firing("Horror", item_ids=ids)],
                rows=[row(item_id=one) for one in ids],
                items=[interpreter_pb2.ItemAttribution(item=item)],
                explainable=True,
            )
        )
    )
    assert "Alien, i-2, i-3 and 2 more" in shown
    assert "5 candidates" in shown
    assert "left out" not in shown


def test_of_one_row_nothing_is_said_about_rows() -> None:
    shown = text_of(explanation(interpreter_pb2.ExplainResponse(firings=[firing("Horror")], explainable=True)))
    assert "interests" not in shown
    assert "candidates" not in shown
    assert "Where the scores come from" in shown


def test_a_refusal_and_a_read_only_hook_say_why_there_are_no_items() -> None:
    refused = interpreter_pb2.ExplainResponse(refusal="cannot explain: too far off", explainable=False)
    assert "cannot explain: too far off" in text_of(explanation(refused))
    read_only = interpreter_pb2.ExplainResponse(no_items="hook b can only be read", explainable=True)
    assert "No items: hook b can only be read." in text_of(explanation(read_only))
    assert "Where the scores come from" not in text_of(explanation(read_only))


def test_attributes_are_numbers_where_they_are_some_and_text_elsewhere() -> None:
    found = attribute_values(["age=25", "zip=02139", "city=New York", "note=a=b", "premium=true", "new=false"])
    assert found["age"].number == 25.0
    assert [found[name].text for name in ("zip", "city", "note")] == ["02139", "New York", "a=b"]
    # As in `--segment premium=true`, which a text never meets.
    assert [found[name].WhichOneof("value") for name in ("premium", "new")] == ["flag", "flag"]
    assert (found["premium"].flag, found["new"].flag) == (True, False)
    assert attribute_values(None) == {}


@pytest.mark.parametrize("texts", [["age"], ["=25"], ["age="], ["age=25", "age=26"]])
def test_what_is_no_attribute_is_refused_with_the_form(texts: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match=r"write e\.g\. age=25"):
        attribute_values(texts)


def test_models_are_listed_with_what_their_bundles_say_and_without_where_they_cannot_be_read(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "home")
    version = publish_bundle(workspace.artifacts(), tiny_bundle(tmp_path / "bundle").folder)
    workspace.add_model(ModelEntry("tiny", version))
    workspace.add_model(ModelEntry("lost", "0" * 16))
    workspace.add_model(ModelEntry("far", "v7", address="127.0.0.1:6000"))
    tiny, lost, far = model_records(workspace, workspace.models())
    assert tiny["family"] == "sasrec"
    assert (tiny["hooks"][0]["name"], tiny["hooks"][0]["rows"]) == ("sequence", "subject")
    assert tiny["reads"]["history"] is True
    assert "hooks" not in lost
    assert "hooks" not in far
    shown = text_of(model_tables(workspace, workspace.models()))
    assert "(bundle not readable)" in shown
    assert "at 127.0.0.1:6000" in shown
    assert shown.index("Where they can be read") < shown.index("sequence")


def test_the_address_of_a_hook_names_its_model_in_a_workspace(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.add_model(ModelEntry("one", "1" * 16))
    workspace.add_model(ModelEntry("two", "2" * 16))
    assert workspace.model("two@block_0").name == "two"
    assert workspace.model("").name == "one"
    with pytest.raises(FailedPreconditionError, match="no model 'three@block_0'"):
        workspace.model("three@block_0")


def test_a_platform_that_accepts_and_never_answers_ends_in_a_sentence_with_the_time_it_had() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        platform = Platform(address, address, ClientOptions())
        with pytest.raises(DeadlineExceededError, match=r"did not answer within 0\.2 s; look at `recsae status`"):
            platform.call(platform.steering.ListPolicies, steering_pb2.ListPoliciesRequest(), 0.2)
