"""What the study was asked to reach, and whether it does: point estimates beside their aims, nothing left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Found = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Aim:
    """A figure of a data set, the least it should be, and what it was called when it was set."""

    name: str
    data: str
    least: float
    figure: Callable[[Mapping[str, Any]], float]
    at_most: bool = False

    def met(self, value: float) -> bool:
        """Whether the point estimate reaches it."""
        return value <= self.least if self.at_most else value >= self.least


def _genre(parts: Mapping[str, Any], name: str) -> float:
    return float(parts["probing"]["genre_corr"]["recent"][name]["value"])


def _described(parts: Mapping[str, Any], name: str) -> float:
    return float(parts["dictionary"]["sae"]["described_ndcg"][name]["value"])


def _own(parts: Mapping[str, Any], kind: str, what: str = "share") -> float:
    return float(parts["dictionary"]["sae"][kind][what])


def _title(parts: Mapping[str, Any], against: str) -> float:
    ways = [one for one in parts["coherence"]["title"].values() if isinstance(one, Mapping) and against in one]
    return max(float(one[against]["value"]) for one in ways)


def _steering(parts: Mapping[str, Any], what: str) -> float:
    return float(parts["steering"]["mean"]["2%"][what]["value"])


AIMS = (
    Aim("described NDCG score", "ml-1m", 0.45, lambda p: _described(p, "score")),
    Aim(
        "described NDCG minus facets without an SAE at equal length",
        "ml-1m",
        0.0,
        lambda p: _described(p, "described") - _described(p, "linear"),
    ),
    Aim("verified, share of all live latents", "ml-1m", 0.6, lambda p: _own(p, "verified")),
    Aim("verified, share of activation mass", "ml-1m", 0.75, lambda p: _own(p, "verified", "mass")),
    Aim("semantic, share of live", "ml-1m", 0.35, lambda p: _own(p, "semantic")),
    Aim("confidence of .5 or more, share of live", "ml-1m", 0.25, lambda p: _own(p, "confident")),
    Aim(
        "verified, trained minus untrained",
        "ml-1m",
        0.4,
        lambda p: float(p["dictionary"]["trained_minus_untrained"]["verified"]["difference"]),
    ),
    Aim("genre correlation over the linear probe's", "ml-1m", 0.9, lambda p: _genre(p, "sae_over_linear_probe")),
    Aim("genre correlation above data points", "ml-1m", 0.1, lambda p: _genre(p, "sae_minus_data_points")),
    Aim("steering: mean gain in log-odds at a loss of 2 %", "ml-1m", 0.8, lambda p: _steering(p, "handle")),
    Aim(
        "steering: gain above difference of means",
        "ml-1m",
        0.0,
        lambda p: _steering(p, "handle_minus_difference_of_means"),
    ),
    Aim(
        "steering: least percentile among nulls",
        "ml-1m",
        0.95,
        lambda p: min(one["null_percentile"] for one in p["steering"]["facets"]),
    ),
    Aim("refresh: verified concepts kept, warm", "ml-1m", 0.9, lambda p: float(p["refresh"]["warm"]["kept"]["value"])),
    Aim(
        "refresh: false matches",
        "ml-1m",
        0.05,
        lambda p: float(p["refresh"]["false_match"]["value"]),
        at_most=True,
    ),
    Aim("planted: recovered with the right label", "ml-1m", 0.95, lambda p: float(p["planted"]["recovered"])),
    Aim(
        "title coherence: lift of evidence",
        "amazon-beauty",
        3.0,
        lambda p: p["coherence"]["title"]["evidence"]["lift"]["value"],
    ),
    Aim(
        "title coherence: best way over RecSAE's on the same SAE",
        "amazon-beauty",
        1.5,
        lambda p: _title(p, "over_recsae"),
    ),
    Aim(
        "title coherence: best way over RecSAE's best SAE", "amazon-beauty", 1.5, lambda p: _title(p, "over_best_rival")
    ),
)


def reached(found: Found) -> list[tuple[Aim, float]]:
    """Every aim of the data sets there are, with its figure."""
    return [(aim, round(aim.figure(found[aim.data]), 4)) for aim in AIMS if aim.data in found]
