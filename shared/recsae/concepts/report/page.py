"""Puts the parts of a report into one HTML page that loads nothing: style, script and plots are inside it."""

from __future__ import annotations

from importlib import resources

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.report import FULL
from recsae.concepts.report.causes import steering
from recsae.concepts.report.concept import in_full, in_short
from recsae.concepts.report.figures import figures
from recsae.concepts.report.listing import listing
from recsae.concepts.report.markup import Markup, tag
from recsae.concepts.report.material import Facts, Material
from recsae.concepts.report.overview import figures_beside_controls, head, how_to_read
from recsae.concepts.report.wording import section

_PARTS = (
    ("reading", "How to read this"),
    ("glance", "At a glance"),
    ("pictures", "Pictures"),
    ("steering", "Turning concepts"),
    ("concepts", "All concepts"),
    ("in-full", "In full"),
    ("in-short", "In short"),
)
# Nothing but what is in the page itself may load or run, whatever a title says.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def render(dictionary: Dictionary, facts: Facts, *, full: int = FULL) -> str:
    """The page. The `full` most trustworthy concepts and the `full` of most activation are told in full."""
    material = Material(dictionary, facts, full)
    told = [concept for concept in material.live if concept.id in material.in_full]
    brief = [concept for concept in material.live if concept.id not in material.in_full]
    turned = steering(material)
    title = f"Concept report: {facts.model or dictionary.model_version}"
    present = {"steering": turned is not None, "in-full": bool(told), "in-short": bool(brief)}
    links = [tag("a", words, href=f"#{place}") for place, words in _PARTS if present.get(place, True)]
    in_words = f"The {full} most trustworthy concepts and the {full} that hold most activation, with all there is."
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", title),
            tag("style", Markup(_asset("report.css"))),
        ),
        tag(
            "body",
            tag("a", "Skip to the concepts", href="#concepts", class_="skip"),
            head(material),
            tag("nav", links, aria_label="Parts of the report"),
            tag(
                "main",
                how_to_read(),
                figures_beside_controls(material),
                figures(material),
                turned,
                listing(material),
                section("Concepts in full", [in_full(material, one) for one in told], lead=in_words, id_="in-full")
                if told
                else None,
                section("All other concepts, in short", [in_short(material, one) for one in brief], id_="in-short")
                if brief
                else None,
            ),
            tag("script", Markup(_asset("report.js"))),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"


def _asset(name: str) -> str:
    return (resources.files("recsae.concepts.report") / name).read_text(encoding="utf-8")
