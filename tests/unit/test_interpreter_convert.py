"""Concepts as messages: nothing that was found about one gets lost on the way."""

from __future__ import annotations

from recsae.concepts.records import ConceptRecord, Evidence, EvidenceItem, Neighbour, QuantileBand
from recsae.pipeline.triples import Triple
from recsae_interpreter.convert import concept_response
from recsae_interpreter.handlers.concepts import FoundConcept


def sequence(strength: float, item: str) -> Evidence:
    return Evidence(strength, (EvidenceItem(item, item.upper(), 0.25, True),))


def test_a_concept_keeps_its_examples_neighbours_bands_and_scores() -> None:
    record = ConceptRecord(
        id="c-1",
        latent=3,
        evidence=(sequence(2, "a"),),
        random_evidence=(sequence(0.75, "b"), sequence(0.5, "c")),
        near_misses=(sequence(0.25, "d"),),
        neighbours=(Neighbour("c-2", "Near", 0.5),),
        decoder_neighbours=(Neighbour("c-3", "Alike", 0.75),),
        bands=(QuantileBand(0, 0.5, 7, sequence(0.25, "e")), QuantileBand(0.5, 1, 0)),
        scores={"concentration": 0.0625, "typical_lag": 2.0},
    )
    detail = concept_response(FoundConcept(record, Triple())).detail
    assert [one.items[0].item_id for one in detail.random_evidence] == ["b", "c"]
    assert detail.random_evidence[0].strength == 0.75
    assert (detail.near_misses[0].strength, detail.near_misses[0].items[0].title) == (0.25, "D")
    assert (detail.evidence[0].items[0].drop, detail.evidence[0].items[0].deciding) == (0.25, True)
    assert [(one.concept_id, one.correlation) for one in detail.decoder_neighbours] == [("c-3", 0.75)]
    assert detail.neighbours[0].label == "Near"
    assert [(band.low, band.high, band.firings) for band in detail.bands] == [(0, 0.5, 7), (0.5, 1, 0)]
    assert detail.bands[0].example.items[0].item_id == "e"
    assert not detail.bands[1].HasField("example")
    assert dict(detail.scores) == {"concentration": 0.0625, "typical_lag": 2.0}
