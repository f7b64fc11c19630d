"""A concept's view shows how it fires at every strength, what nearly fires it, and what decodes like it."""

from __future__ import annotations

from rich.console import Console

from recsae.cli.views import concept_detail
from recsae.v1 import interpreter_pb2


def shown(detail: interpreter_pb2.ConceptDetail) -> str:
    console = Console(width=160, no_color=True)
    with console.capture() as captured:
        console.print(concept_detail(detail))
    return captured.get()


def sequence(strength: float, *titles: str) -> interpreter_pb2.Evidence:
    items = [interpreter_pb2.EvidenceItem(item_id=title[:1], title=title) for title in titles]
    return interpreter_pb2.Evidence(strength=strength, items=items)


def test_bands_random_firings_near_misses_and_decoder_neighbours_are_shown() -> None:
    bands = [
        interpreter_pb2.QuantileBand(low=low, high=low + 1, firings=1000 * (number + 1), example=sequence(low, "Alien"))
        for number, low in enumerate((0.0, 0.4, 1.0, 1.2))
    ]
    text = shown(
        interpreter_pb2.ConceptDetail(
            random_evidence=[sequence(0.61, "Old one", "Heat", "Se7en", "Fargo [1996]")],
            near_misses=[sequence(0.33, "Clue")],
            decoder_neighbours=[interpreter_pb2.Neighbour(concept_id="c-1", label="Horror", correlation=0.91)],
            bands=bands,
            scores={"concentration": 0.034, "popularity_correlation": -0.25},
        )
    )
    assert "strength 0.61: Heat · Se7en · Fargo [1996]" in text
    assert "strength 0.33: Clue" in text
    for expected in ("above p99", "1.20 to 2.20", "4,000", "Alien", "cosine", "+0.91"):
        assert expected in text
    assert "mass in the strongest 1 % 0.03; correlation with popularity -0.25" in text


def test_what_a_dictionary_of_an_older_release_lacks_is_left_out() -> None:
    text = shown(interpreter_pb2.ConceptDetail(bands=[interpreter_pb2.QuantileBand(low=0, high=1, firings=3)]))
    assert "Near misses" not in text
    assert "Random firings" not in text
    assert "0.00 to 1.00" in text
