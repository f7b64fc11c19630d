"""The report of a dictionary is one page that loads nothing, says what is known, and escapes what it was given."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from recsae.concepts.described import DescribedNdcg
from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.effects import CausalRecord, DoseEffect, SafeRange
from recsae.concepts.estimates import Estimate
from recsae.concepts.origins import Fate, Lineage, Origin
from recsae.concepts.records import (
    ConceptKind,
    ConceptRecord,
    ConceptStatus,
    Evidence,
    EvidenceItem,
    FacetLift,
    ItemScore,
    LabelSource,
    LlmRecord,
    Neighbour,
    QuantileBand,
)
from recsae.concepts.report.material import Facts
from recsae.concepts.report.page import render
from recsae.sae.user_sums import Interval

HOSTILE = """<script>alert("x")</script><img src=x onerror='alert(1)'>&amp;"""
_VOID = {"meta", "input", "br", "img", "link"}


class Parsed(HTMLParser):
    """A page as its elements: names with attributes, ids, links, visible text; fails on tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in {"style", "script"}:
            self.text.append(data)

    @property
    def ids(self) -> list[str]:
        return [attrs["id"] or "" for _, attrs in self.elements if "id" in attrs]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.1, value + 0.1)


def known_concept(latent: int, **changes: object) -> ConceptRecord:
    history = Evidence(1.5, (EvidenceItem("7", "Heat", 0.1), EvidenceItem("8", "Alien", 0.9, True)))
    concept = ConceptRecord(
        id=f"c-{latent:08x}",
        latent=latent,
        label=f"Mostly: Horror {latent}",
        output_label="Horror",
        kind=ConceptKind.SEMANTIC,
        status=ConceptStatus.VERIFIED,
        density=0.02,
        p95=2.0,
        confidence=0.6,
        control_confidence=0.1,
        predicate="recent[genre=Horror] >= 0.55",
        precision=estimate(0.7),
        recall=estimate(0.8),
        f1=estimate(0.75),
        balanced_f1=estimate(0.9),
        positives=300,
        users=120,
        effective_items=14.2,
        evidence=(history,),
        bands=(QuantileBand(0.0, 0.5, 40, history),),
        promoted=(ItemScore("9", "Amélie", 0.3),),
        suppressed=(ItemScore("10", "Babe", -0.3),),
        neighbours=(Neighbour("c-00000001", "Thriller", 0.4),),
        input_facets=(FacetLift("genre=Horror", 2.0, 1.5),),
    )
    return replace(concept, **changes)  # type: ignore[arg-type]


def make_dictionary(*concepts: ConceptRecord, **summary: object) -> Dictionary:
    width = len(concepts)
    density = np.array([concept.density for concept in concepts], np.float32)
    ones = np.ones(width, np.float32)
    dead = sum(concept.status is ConceptStatus.DEAD for concept in concepts)
    figures = {"count": 1, "share_of_live": 0.25, "share_of_mass": 0.4}
    counted = {"width": width, "live": width - dead, "dead": dead, "verified": figures, **summary}
    return Dictionary("d" * 16, "a" * 16, "b" * 16, concepts, ConceptArrays(ones, ones, ones, ones, density), counted)


def page_of(*concepts: ConceptRecord, full: int = 10, **summary: object) -> str:
    return render(make_dictionary(*concepts, **summary), Facts("movies", written_at="2026-11-26 15:00 UTC"), full=full)


def others(count: int) -> list[ConceptRecord]:
    bare = {"kind": ConceptKind.FACET, "status": ConceptStatus.UNVERIFIED, "confidence": 0.2, "density": 0.01}
    return [known_concept(latent, **bare) for latent in range(1, count)]


def test_a_page_is_well_formed_and_its_links_lead_somewhere() -> None:
    page = Parsed(page_of(known_concept(0), *others(6), full=2))
    assert len(page.ids) == len(set(page.ids))
    targets = [attrs["href"] or "" for name, attrs in page.elements if name == "a"]
    assert targets
    assert {target.removeprefix("#") for target in targets} <= set(page.ids)


def test_a_page_loads_nothing_from_anywhere() -> None:
    text = page_of(known_concept(0, causal=turned()), *others(4))
    page = Parsed(text)
    assert not [name for name, _ in page.elements if name in {"img", "link", "iframe", "object", "embed", "base"}]
    assert not [attrs for _, attrs in page.elements if "src" in attrs or "srcset" in attrs]
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text
    (policy,) = [attrs["content"] for _, attrs in page.elements if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert (policy or "").startswith("default-src 'none'")


def test_hostile_titles_labels_and_descriptions_stay_text() -> None:
    history = Evidence(1.0, (EvidenceItem("1", HOSTILE, 0.5, True), EvidenceItem(HOSTILE, "", 0.1)))
    concept = known_concept(
        0, label=HOSTILE, output_label=HOSTILE, predicate=HOSTILE, evidence=(history,), near_misses=(history,),
        random_evidence=(history,), bands=(QuantileBand(0, 1, 2, history),), promoted=(ItemScore("1", HOSTILE, 1.0),),
        suppressed=(ItemScore("1", HOSTILE, -1.0),), neighbours=(Neighbour("c-00000000", HOSTILE, 0.1),),
        input_facets=(FacetLift(HOSTILE, 1, 1),), llm=LlmRecord(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 9, estimate(0.5)),
        origin=Origin(HOSTILE, (HOSTILE,)), causal=turned(HOSTILE, HOSTILE, HOSTILE),
    )  # fmt: skip
    short = replace(concept, id="c-short", latent=1, confidence=0.1, density=0.001)
    text = render(
        make_dictionary(concept, short, **{HOSTILE: HOSTILE}),
        Facts(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE),
        full=1,
    )
    page = Parsed(text)
    assert "c-short" in page.ids
    assert len([name for name, _ in page.elements if name == "script"]) == 1
    assert not [name for name, attrs in page.elements if name == "img" or "onerror" in attrs]
    assert page.words.count(HOSTILE) > 20


def test_a_concept_in_full_says_everything_that_is_known_and_nothing_that_is_not() -> None:
    words = Parsed(page_of(known_concept(0))).words
    for part in ("recent[genre=Horror] >= 0.55", ".75 [.65, .85]", "Alien", "Amélie", "Babe", "From weak to strong"):
        assert part in words
    for absent in ("Near misses", "language model", "What turning", "Since the refresh before", "F1, hard negatives"):
        assert absent not in words
    deciding = re.findall(r"<mark[^>]*>([^<]*)</mark>", page_of(known_concept(0)))
    assert set(deciding) == {"Alien"}


def turned(facet: str = "genre=Horror", operation: str = "scale", limit: str = "ndcg") -> CausalRecord:
    kept = estimate(0.99)
    doses = tuple(
        DoseEffect(operation, dose, estimate(dose - 1), kept, kept, kept, estimate(0.01), 0.3)
        for dose in (0.0, 1.0, 3.0)
    )
    return CausalRecord(facet, 2_000, doses, (SafeRange(operation, 0.0, 2.5, limit),), True, 0.97)


def test_what_later_stages_add_is_told_where_it_is_there() -> None:
    history = Evidence(0.9, (EvidenceItem("5", "Tremors"),))
    words = Parsed(
        page_of(
            known_concept(
                0, causal=turned(), near_misses=(history,), label_source=LabelSource.HUMAN,
                origin=Origin("merged", ("c-00000000", "c-gone"), 0.93, 0.8, True),
                llm=LlmRecord("Scary", "Films that frighten.", "small-model", "v1", 200, estimate(0.6)),
            )
        )
    ).words  # fmt: skip
    told = (
        "Steering frontier", "0 to 2.5", "2,000 users", "97.0 % of random latents of like density", "Tremors",
        "label by a person", "merged , carries on c-00000000 c-gone", "its old rule still holds",
        "Films that frighten.",
        "correlation with true strength .60 [.50, .70]",
    )  # fmt: skip
    assert [part for part in told if part not in words] == []


def test_what_became_of_the_dictionary_before_is_told_beside_chance() -> None:
    fates = (
        Fate("c-1", "Horror", "stable", ("c-00000000",), verified=True, kept=True),
        Fate("c-2", "Comedy", "lost", verified=True, kept=False),
        Fate("c-3", "Western", "lost"),
    )
    lineage = Lineage(("e" * 16,), "b" * 16, "a" * 16, 1_000, None, 0.012, fates)
    words = Parsed(render(replace(make_dictionary(known_concept(0)), lineage=lineage), Facts("movies"))).words
    assert "50.0 % of what was verified before the last refresh" in words
    assert f"1 of 2 verified concepts of dictionary {'e' * 16}" in words
    assert "In an unrelated dictionary 1.2 % of latents would be matched." in words


_KEPT = {"sae": 0.97, "described": 0.52, "labelled": 0.53, "permuted": 0.13, "shuffled": 0.14, "linear": 0.37}


def test_figures_stand_beside_their_controls() -> None:
    gap = {"trained": 0.25, "control": 0.1, "difference": 0.15, "low": 0.05, "high": 0.2}
    kept = {side: Interval(value, value - 0.02, value + 0.02) for side, value in _KEPT.items()}
    score, without = Interval(0.41, 0.38, 0.44), Interval(0.29, 0.25, 0.33)
    described = DescribedNdcg(kept, kept, score, without, bits=9_000.0, linear_features=3).as_json()
    words = Parsed(
        page_of(
            known_concept(0), trained_minus_control={"verified": gap}, swapped_labels_verified_share=0.02,
            described_ndcg=described, intruder={"accuracy": 0.7},
        )
    ).words  # fmt: skip
    assert "25.0 %" in words
    assert "Untrained network: 10.0 %; trained is +15.0 points [+5.0, +20.0] away." in words
    assert "With a wrong label each (swapped): 2.0 %." in words
    assert ".41 of the way from wrong descriptions to the SAE itself" in words
    assert "95 % interval .38 to .44" in words
    assert "Facets without an SAE, at equal length: .29 [.25, .33]" in words
    assert "descriptions of other concepts .13; facets without an SAE .37" in words
    assert "intruder.accuracy 0.7" in words
    assert "No untrained control was run." in Parsed(page_of(known_concept(0))).words


def test_the_most_trusted_and_the_largest_are_told_in_full_the_others_in_short() -> None:
    trusted = known_concept(0, confidence=0.9, density=0.001)
    large = known_concept(1, confidence=0.1, density=0.5)
    small = known_concept(2, confidence=0.2, density=0.002)
    page = Parsed(page_of(trusted, large, small, full=1))
    told = {attrs["id"]: attrs["class"] for name, attrs in page.elements if name == "article"}
    assert told == {trusted.id: "concept", large.id: "concept", small.id: "concept short"}


def test_the_dead_are_counted_and_not_listed() -> None:
    dead = known_concept(1, status=ConceptStatus.DEAD, label="Never", density=0.0)
    page = Parsed(page_of(known_concept(0), dead))
    assert dead.id not in page.ids
    assert "Never" not in page.words
    assert "1 never do" in page.words


@pytest.mark.parametrize("concepts", [(), (ConceptRecord(id="c-00000000", latent=0),)])
def test_a_dictionary_with_next_to_nothing_still_makes_a_page(concepts: tuple[ConceptRecord, ...]) -> None:
    page = Parsed(render(make_dictionary(*concepts), Facts("")))
    assert "What this model has learned" in page.words


def test_tables_have_header_cells_and_figures_a_text() -> None:
    page = Parsed(page_of(known_concept(0, causal=turned()), *others(3)))
    assert all(attrs.get("scope") in {"row", "col"} for name, attrs in page.elements if name == "th")
    plots = [attrs for name, attrs in page.elements if name == "svg"]
    assert len(plots) > 6
    assert all(attrs.get("role") == "img" and attrs.get("aria-label") for attrs in plots)


def test_a_page_of_a_thousand_concepts_stays_below_six_megabytes() -> None:
    items = tuple(EvidenceItem(str(at), f"A title of usual length {at}", 0.1, at == 7) for at in range(8))
    histories = tuple(Evidence(1.0, items) for _ in range(5))
    rich = {"evidence": histories, "random_evidence": histories, "near_misses": histories, "causal": turned()}
    concepts = [known_concept(latent, **rich) for latent in range(1_024)]
    assert len(page_of(*concepts, full=40).encode()) < 6_000_000
