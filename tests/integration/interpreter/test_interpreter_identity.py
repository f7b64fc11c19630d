"""A refresh seen from outside: who steers on, who is suspended and why, and whose words stay. Real servers."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.origins import DRIFTED, LOST, SPLIT, STABLE, Fate, Lineage, Origin
from recsae.pipeline.triples import Triple
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.weights import SaeWeights, load_weights
from recsae.steering.policies import Window
from recsae.steering.wire import window_message
from recsae.store.artifacts import ArtifactStore
from recsae.store.channels import PRODUCTION
from recsae.store.channels_redis import RedisChannelStore
from recsae.store.events import change_now
from recsae.store.redis import connect
from recsae.v1 import interpreter_pb2, recommender_pb2, steering_pb2

Start = Callable[..., Any]
MODEL = "tiny"
HUMAN, RULES = interpreter_pb2.LABEL_SOURCE_HUMAN, interpreter_pb2.LABEL_SOURCE_RULES
KEPT, DOUBTED, MOVED, GONE, APART = (f"c-0-{latent}" for latent in (3, 5, 7, 9, 11))
FATES: Mapping[str, Fate] = {
    KEPT: Fate(KEPT, "Kept", STABLE, (KEPT,), 0.9, 0.9, 0.1, verified=True, kept=True),
    DOUBTED: Fate(DOUBTED, "Doubted", STABLE, (DOUBTED,), 0.8, 0.8, 0.1, verified=True, kept=False),
    MOVED: Fate(MOVED, "Moved", DRIFTED, (MOVED,), 0.5, 0.6, 0.1, verified=True, kept=True),
    GONE: Fate(GONE, "Gone", LOST, (), mass=0.1, verified=True, kept=False),
    APART: Fate(APART, "Apart", SPLIT, ("c-new-11", "c-new-9"), mass=0.1, verified=True, kept=False),
}


def refreshed(published: Any, number: int, name: str) -> Triple:
    """Triple `number` after a refresh: the same latents under other numbers, with the fates above."""
    store = ArtifactStore(str(published.root))
    before = published.triples[number] if isinstance(number, int) else number
    old = Dictionary.load(store.fetch("dictionary", before.dictionary_version).folder, before.dictionary_version)
    weights = load_weights(store.fetch("sae", before.sae_version).folder)
    order = np.random.default_rng(4).permutation(weights.width)
    folder = published.root / f"refresh-{name}"
    (folder / "sae").mkdir(parents=True)
    (folder / "dictionary").mkdir()
    shuffled = SaeWeights(weights.w_enc[order], weights.b_enc[order], weights.w_dec[order], weights.b_dec, weights.mean)
    export_sae(shuffled, 6, TrainingFacts(error_p99=10.0, mean_norm=1.0), folder / "sae")
    config, lineage = {"model": MODEL, "hook": "sequence"}, {"model": before.model_version}
    sae = store.publish("sae", folder / "sae", config=config, lineage=lineage)
    concepts = []
    for latent, was in enumerate(order.tolist()):
        concept = replace(old.concepts[was], latent=latent)
        fate = FATES.get(concept.id, Fate(concept.id, "", STABLE, (concept.id,), 1.0, 1.0))
        origin = Origin(fate.status, (concept.id,), fate.cosine, fate.correlation, fate.kept)
        origin = replace(origin, unbroken=0 if origin.doubt else 1)
        taken = concept.id if concept.id in fate.to_ids else f"c-new-{was}"
        concepts.append(replace(concept, id=taken, origin=origin))
    history = Lineage(
        (before.dictionary_version,), before.sae_version, before.model_version, 8192, None, 0.01, tuple(FATES.values())
    )
    made = Dictionary("", before.model_version, sae, tuple(concepts), old.arrays, {}, history)
    made.save(folder / "dictionary")
    version = store.publish("dictionary", folder / "dictionary", config=config, lineage={**lineage, "sae": sae})
    return Triple(before.model_version, sae, version)


@pytest.fixture
def point(redis_url: str) -> Callable[[Triple], None]:
    """Points production at a triple."""

    def to(triple: Triple) -> None:
        change = change_now(actor="test", action="channel.promote", reason="a test", request_id="r")
        with connect(redis_url) as client:
            RedisChannelStore(client).point(MODEL, PRODUCTION, triple, change)

    return to


def policy_on(stubs: Any, concept: str) -> str:
    operation = steering_pb2.Operation(concept_id=concept, kind=steering_pb2.OPERATION_KIND_ADD, value=1.0)
    policy = steering_pb2.Policy(
        name=concept, model=MODEL, operations=[operation], window=window_message(Window(end=time.time() + 600))
    )
    made = stubs.steering.CreatePolicy(steering_pb2.CreatePolicyRequest(policy=policy, reason="because"))
    return str(made.policy.id)


def policies(stubs: Any) -> dict[str, steering_pb2.Policy]:
    return {one.name: one for one in stubs.steering.ListPolicies(steering_pb2.ListPoliciesRequest()).policies}


def wait_for(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)


def wait_for_triple(stubs: Any, triple: Triple) -> None:
    def answered() -> bool:
        reply = stubs.interpreter.ListConcepts(interpreter_pb2.ListConceptsRequest(page_size=1))
        return bool(reply.triple.dictionary_version == triple.dictionary_version)

    wait_for("the promotion", answered)


def test_a_kept_concept_steers_through_a_promotion_without_a_gap_and_all_others_are_suspended_with_the_reason(
    start_interpreter: Start, start_recommender: Start, stubs: Start, promote: Start, point: Start, published: Any
) -> None:
    promote(0)
    app = start_interpreter()
    interpreter = stubs(app.server.port)
    recommender = stubs(start_recommender(interpreter=f"127.0.0.1:{app.server.port}").server.port)
    made = {concept: policy_on(interpreter, concept) for concept in (KEPT, DOUBTED, MOVED, GONE, APART)}

    def receipt() -> Any:
        ask = recommender_pb2.RecommendRequest(user_id="u-5", k=10)
        return recommender.recommender.Recommend(ask, timeout=10).receipt

    wait_for("steering by all five", lambda: len(receipt().applied) == 5)
    triple = refreshed(published, 0, "kept")
    receipts: list[Any] = []
    arrived = threading.Event()

    def ask_all_the_time() -> None:
        while not arrived.is_set():
            receipts.append(receipt())
            if receipts[-1].triple.dictionary_version == triple.dictionary_version:
                arrived.set()

    asking = threading.Thread(target=ask_all_the_time)
    asking.start()
    point(triple)
    assert arrived.wait(20)
    asking.join()
    applied = [{one.policy_id for one in one.applied} for one in receipts]
    assert all(made[KEPT] in names for names in applied)
    assert applied[-1] == {made[KEPT]}

    shown = policies(interpreter)
    assert shown[KEPT].state == steering_pb2.POLICY_STATE_LIVE
    suspended = steering_pb2.POLICY_STATE_SUSPENDED
    assert {shown[concept].state for concept in (DOUBTED, MOVED, GONE, APART)} == {suspended}
    assert f"{DOUBTED} no longer passes verification with its old rule" in shown[DOUBTED].state_reason
    assert f"{MOVED} drifted (decoder cosine 0.50" in shown[MOVED].state_reason
    assert f"{GONE} was lost" in shown[GONE].state_reason
    assert f"{APART} was split into c-new-11, c-new-9" in shown[APART].state_reason
    with urllib.request.urlopen(f"http://127.0.0.1:{app.metrics_port}/metrics", timeout=5) as page:
        assert 'recsae_policies{model="tiny",state="suspended"} 4.0' in page.read().decode()


def test_a_policy_made_again_for_the_concept_as_it_is_now_steers(
    start_interpreter: Start, stubs: Start, promote: Start, point: Start, published: Any
) -> None:
    promote(0)
    interpreter = stubs(start_interpreter().server.port)
    policy_on(interpreter, MOVED)
    triple = refreshed(published, 0, "again")
    point(triple)
    wait_for_triple(interpreter, triple)
    again = policy_on(interpreter, MOVED)
    states = [one.state for one in interpreter.steering.ListPolicies(steering_pb2.ListPoliciesRequest()).policies]
    assert states == [steering_pb2.POLICY_STATE_SUSPENDED, steering_pb2.POLICY_STATE_LIVE]
    call = interpreter.steering.WatchPlans(steering_pb2.WatchPlansRequest(model=MODEL, watcher="t"), timeout=10)
    plans = (event.plans.plans[0] for event in call if event.WhichOneof("event") == "plans")
    plan = next(plan for plan in plans if plan.policies)
    call.cancel()
    assert [one.ref.policy_id for one in plan.policies] == [again]
    assert plan.triple.dictionary_version == triple.dictionary_version


def test_going_back_never_binds_a_policy_to_what_the_concept_meant_before(
    start_interpreter: Start, stubs: Start, promote: Start, point: Start, published: Any
) -> None:
    promote(0)
    interpreter = stubs(start_interpreter().server.port)
    triple = refreshed(published, 0, "back")
    point(triple)
    wait_for_triple(interpreter, triple)
    policy_on(interpreter, MOVED)
    point(published.triples[0])
    wait_for_triple(interpreter, published.triples[0])
    shown = policies(interpreter)[MOVED]
    assert shown.state == steering_pb2.POLICY_STATE_SUSPENDED
    assert f"was named for dictionary {triple.dictionary_version}" in shown.state_reason


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
