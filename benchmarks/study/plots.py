"""Plots of the study as SVG: confidence beside its control, coverage, steering frontiers, quality kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("svg")
from matplotlib import pyplot

_METHODS = {
    "handle": "concepts",
    "single": "one concept",
    "difference_of_means": "difference of means",
    "tag": "by tag",
}
_COLOURS = {"handle": "#0b6e4f", "single": "#6fb98f", "difference_of_means": "#c1666b", "tag": "#777777"}


def draw(found: Mapping[str, Mapping[str, Any]], out: Path) -> list[tuple[str, str]]:
    """Writes every plot there is material for; names of files and captions."""
    out.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update({"svg.hashsalt": "recsae", "font.size": 9})
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    drawn = []
    for name, parts in found.items():
        drawn.append(_confidence(name, parts["dictionary"], out))
        drawn.append(_quality(name, parts["ndcg_kept"], out))
        if "steering" in parts:
            drawn.append(_frontiers(name, parts["steering"]["facets"], out))
    return drawn


def _confidence(name: str, dictionary: Mapping[str, Any], out: Path) -> tuple[str, str]:
    figure, axis = pyplot.subplots(figsize=(6, 2.8))
    edges = np.linspace(0, 1, 11)[:-1]
    for shift, (label, counts, colour) in enumerate(
        (
            ("confidence", dictionary["sae"]["confidence"], "#0b6e4f"),
            ("label swaps, 95th percentile", dictionary["sae"]["control_confidence"], "#c1666b"),
            ("untrained network", dictionary["untrained"]["confidence"], "#777777"),
        )
    ):
        share = np.array(counts) / max(1, sum(counts))
        axis.bar(edges + 0.015 + 0.03 * shift, share, width=0.028, align="edge", label=label, color=colour)
    axis.set(xlabel="lower bound of F1 at the natural mix", ylabel="share of live latents", title=name)
    axis.legend(frameon=False)
    return _saved(figure, out, f"{name}-confidence.svg"), f"{name}: confidence of concepts beside its controls"


def _quality(name: str, kept: Mapping[str, Any], out: Path) -> tuple[str, str]:
    ks = [k for k in kept if k != "seconds"]
    figure, axis = pyplot.subplots(figsize=(6, 2.8))
    places = [int(k) for k in ks]
    sae = np.array([kept[k]["sae"] for k in ks])
    reach = np.abs(np.array([kept[k]["ci"] for k in ks]).T - sae)
    axis.errorbar(places, sae, yerr=reach, marker="o", label="SAE", color="#0b6e4f", capsize=3)
    axis.plot(places, [kept[k]["adaptive_pca"] for k in ks], marker="s", label="adaptive PCA-k", color="#c1666b")
    axis.plot(places, [kept[k]["pca"] for k in ks], marker="^", label="PCA-k", color="#777777")
    axis.set(xlabel="k of d = 64", ylabel="NDCG@20 kept", title=name, xscale="log")
    axis.set_xticks(places, [str(place) for place in places])
    axis.legend(frameon=False)
    return _saved(figure, out, f"{name}-kept.svg"), f"{name}: quality kept beside principal components"


def _frontiers(name: str, facets: list[Mapping[str, Any]], out: Path) -> tuple[str, str]:
    figure, axes = pyplot.subplots(1, len(facets), figsize=(2.6 * len(facets), 2.8), sharey=True, squeeze=False)
    for axis, facet in zip(axes[0], facets, strict=True):
        for method, points in facet["frontier"].items():
            loss = [100 * point["loss"] for point in points]
            gain = [point["dlogodds"] for point in points]
            axis.plot(loss, gain, label=_METHODS.get(method, method), color=_COLOURS.get(method))
        axis.set(title=facet["facet"].partition("=")[2], xlabel="NDCG@10 lost, %", xlim=(-2, 10), ylim=(0, 3))
    axes[0][0].set_ylabel("gain in log-odds of share")
    axes[0][0].legend(frameon=False, fontsize=7)
    return _saved(figure, out, f"{name}-steering.svg"), f"{name}: what steering towards a facet gains and costs"


def _saved(figure: Any, out: Path, name: str) -> str:
    figure.tight_layout()
    figure.savefig(out / name, metadata={"Date": None})
    pyplot.close(figure)
    return name
