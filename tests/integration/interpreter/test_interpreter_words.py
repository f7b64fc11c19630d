"""People's own words for concepts, and what became of concepts, over refreshes. Real servers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from tests.integration.interpreter.refreshes import (
    APART,
    GONE,
    KEPT,
    MODEL,
    MOVED,
    refreshed,
    wait_for,
    wait_for_triple,
)

from recsae.cli import app as cli
from recsae.concepts.origins import DRIFTED, LOST, SPLIT, STABLE
from recsae.v1 import interpreter_pb2, steering_pb2

Start = Callable[..., Any]
HUMAN, RULES = interpreter_pb2.LABEL_SOURCE_HUMAN, interpreter_pb2.LABEL_SOURCE_RULES


def edit(stubs: Any, concept: str, label: str = "", note: str = "", revision: int | None = None) -> Any:
    request = interpreter_pb2.EditConceptRequest(
        concept_id=concept, label=label, note=note, reason="clearer", expected_revision=revision
    )
    return stubs.interpreter.EditConcept(request).edit


def shown_concept(stubs: Any, concept: str) -> interpreter_pb2.Concept:
    found: interpreter_pb2.Concept = stubs.interpreter.GetConcept(
        interpreter_pb2.GetConceptRequest(concept_id=concept)
    ).detail.concept
    return found


def found(stubs: Any, query: str) -> list[interpreter_pb2.Concept]:
    hits = stubs.interpreter.SearchConcepts(interpreter_pb2.SearchConceptsRequest(query=query)).hits
    return [hit.concept for hit in hits]


def test_peoples_words_are_shown_and_found_everywhere_with_the_machines_beside_them(
    start_interpreter: Start, start_recommender: Start, stubs: Start, promote: Start
) -> None:
    promote(0)
    app = start_interpreter(recommenders=f"127.0.0.1:{start_recommender().server.port}")
    interpreter = stubs(app.server.port)
    history = interpreter_pb2.ExplainRequest(user_id="u-5")
    fires = interpreter.interpreter.Explain(history).firings[0].concept_id
    machine = shown_concept(interpreter, fires)
    assert (machine.label_source, machine.machine_label) == (RULES, "")
    written = edit(interpreter, fires, "Zeppelins", "seen by night", revision=0)
    assert (written.revision, written.machine_label, written.doubt) == (1, machine.label, "")
    wait_for("the edit", lambda: shown_concept(interpreter, fires).label == "Zeppelins")
    concept = shown_concept(interpreter, fires)
    assert (concept.label_source, concept.machine_label, concept.note) == (HUMAN, machine.label, "seen by night")
    assert interpreter.interpreter.Explain(history).firings[0].label == "Zeppelins"
    listed = interpreter.interpreter.ListConcepts(interpreter_pb2.ListConceptsRequest(page_size=100)).concepts
    assert [one.label for one in listed if one.id == fires] == ["Zeppelins"]
    assert found(interpreter, "zeppelins") == [concept]
    assert concept in found(interpreter, machine.label)
    with pytest.raises(grpc.RpcError) as conflict:
        edit(interpreter, fires, "Balloons", revision=0)
    assert conflict.value.code() is grpc.StatusCode.ABORTED
    events = interpreter.steering.ListAudit(steering_pb2.ListAuditRequest()).events
    assert [(event.action, event.subject) for event in events[:1]] == [("concept.edit", f"{MODEL}/{fires}")]
    assert edit(interpreter, fires).revision == 2
    wait_for("the edit's removal", lambda: shown_concept(interpreter, fires) == machine)
    assert not interpreter.interpreter.ListLabelEdits(interpreter_pb2.ListLabelEditsRequest()).edits


def test_words_outlive_a_restart_and_a_refresh_and_are_listed_with_the_reason_where_they_no_longer_apply(
    start_interpreter: Start, stubs: Start, promote: Start, point: Start, published: Any
) -> None:
    promote(0)
    first = stubs(start_interpreter().server.port)
    for concept in (KEPT, MOVED, GONE):
        edit(first, concept, f"Words for {concept}")
    triple = refreshed(published, 0, "words")
    point(triple)
    interpreter = stubs(start_interpreter().server.port)
    assert shown_concept(interpreter, KEPT).label == f"Words for {KEPT}"
    assert shown_concept(interpreter, MOVED).label_source == RULES
    listed = {
        one.concept_id: one.doubt
        for one in interpreter.interpreter.ListLabelEdits(interpreter_pb2.ListLabelEditsRequest()).edits
    }
    assert (listed[KEPT], listed[GONE]) == ("", "edit of a concept that was lost")
    assert listed[MOVED].startswith("edit of a concept that drifted")
    # Written again for what the concept is now, the words are shown; those for a lost one can only be taken back.
    edit(interpreter, MOVED, "Seen again")
    wait_for("the edit", lambda: shown_concept(interpreter, MOVED).label == "Seen again")
    with pytest.raises(grpc.RpcError) as refused:
        edit(interpreter, GONE, "Still there?")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert edit(interpreter, GONE).revision == 2


def test_a_lost_concept_and_the_lineage_say_what_became_of_it(
    start_interpreter: Start, stubs: Start, promote: Start, point: Start, published: Any
) -> None:
    promote(0)
    interpreter = stubs(start_interpreter().server.port)
    asked = interpreter.interpreter.GetLineage(interpreter_pb2.GetLineageRequest())
    assert (list(asked.ancestors), list(asked.fates)) == ([], [])
    triple = refreshed(published, 0, "lineage")
    point(triple)
    wait_for_triple(interpreter, triple)
    with pytest.raises(grpc.RpcError) as refused:
        shown_concept(interpreter, APART)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert "split into c-new-11, c-new-9" in str(refused.value.details())
    lineage = interpreter.interpreter.GetLineage(interpreter_pb2.GetLineageRequest())
    assert list(lineage.ancestors) == [published.triples[0].dictionary_version]
    assert (lineage.verified, lineage.kept, len(lineage.fates)) == (5, 2, 5)
    assert {one.status: one.count for one in lineage.counts if one.count} == {STABLE: 2, DRIFTED: 1, SPLIT: 1, LOST: 1}
    for concept in (APART, "c-new-11"):
        (fate,) = interpreter.interpreter.GetLineage(interpreter_pb2.GetLineageRequest(concept_id=concept)).fates
        assert (fate.concept_id, fate.kept) == (APART, False)
    detail = interpreter.interpreter.GetConcept(interpreter_pb2.GetConceptRequest(concept_id=KEPT)).detail
    assert (detail.origin.status, detail.origin.kept, detail.origin.doubt) == (STABLE, True, "")


def test_the_command_writes_words_and_says_what_became_of_concepts(
    start_interpreter: Start,
    promote: Start,
    point: Start,
    published: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    promote(0)
    point(refreshed(published, 0, "command"))
    address = f"127.0.0.1:{start_interpreter().server.port}"

    def recsae(*arguments: str) -> Any:
        monkeypatch.setattr(
            sys,
            "argv",
            ["recsae", "--recommender", address, "--interpreter", address, "concepts", *arguments, "--json"],
        )
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code in (0, None)
        # Servers of this process log to the same stream.
        out = capsys.readouterr().out
        return json.loads(out[out.index("\n{") if "\n{" in out else out.index("{") : out.rindex("}") + 1])

    written = recsae("label", KEPT, "Kept words", "--reason", "clearer", "--revision", "0")
    assert (written["edit"]["label"], written["edit"]["revision"]) == ("Kept words", "1")
    assert [edit["concept_id"] for edit in recsae("edits")["edits"]] == [KEPT]
    (fate,) = recsae("lineage", APART)["fates"]
    assert fate["to_ids"] == ["c-new-11", "c-new-9"]
    assert recsae("lineage")["kept"] == "2"
    assert recsae("label", KEPT, "--reason", "wrong")["edit"]["label"] == ""
    assert recsae("edits")["edits"] == []
