"""The examples of a concept beyond its strongest, in a terminal: quantile bands, random positives and near misses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.text import Text

from recsae.cli.output import shortened, table
from recsae.v1 import interpreter_pb2

_BANDS = ("up to the median", "up to p95", "up to p99", "above p99")
_ITEMS, _TITLE = 3, 28
_SHOWN_SCORES = {
    "concentration": "mass in the strongest 1 %",
    "popularity_correlation": "correlation with popularity",
}


def bands(found: Sequence[interpreter_pb2.QuantileBand]) -> RenderableType:
    """One row per band: strengths, firings and the newest items of one of them."""
    names = _BANDS if len(found) == len(_BANDS) else [""] * len(found)
    rows = [
        (name, f"{band.low:.2f} to {band.high:.2f}", f"{band.firings:,}", escape(newest(band.example)))
        for name, band in zip(names, found, strict=True)
    ]
    return table("Firings by strength", ["band", "strength", ">firings", "one of them, newest last"], rows)


def examples(title: str, found: Iterable[interpreter_pb2.Evidence]) -> Text:
    """One line per sequence, under a title; nothing where there are none."""
    lines = [f"  strength {one.strength:.2f}: {newest(one)}\n" for one in found]
    return Text.assemble((f"{title}\n", "bold"), *lines) if lines else Text("", end="")


def health(detail: interpreter_pb2.ConceptDetail) -> Text:
    """Figures of how it fires, in one line."""
    parts = [f"{words} {detail.scores[name]:.2f}" for name, words in _SHOWN_SCORES.items() if name in detail.scores]
    return Text("; ".join(parts), "dim", end="\n" if parts else "")


def newest(case: interpreter_pb2.Evidence) -> str:
    """Titles of the newest items of a sequence, oldest first."""
    titles = [item.title or item.item_id for item in case.items[-_ITEMS:]]
    return " · ".join(shortened(title, _TITLE) for title in titles)
