"""`docs/results.json`: the study's headline figures in one shape, whatever the parts call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.study.dictionaries import headline

_STEERING = (
    *("facet", "dlogodds", "dlogodds_low", "loss", "loss_upper", "out_of_facet_loss", "off_target_excess"),
    "null_percentile",
)
_GENRE = ("sae", "linear_probe", "raw", "data_points", "untrained")


def results_of(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One entry per data set, and what is measured once."""
    results: dict[str, Any] = {name: _data_set(parts) for name, parts in found.items()}
    once = found.get("ml-1m", {})
    if "refresh" in once:
        refresh = once["refresh"]
        results["refresh_kept"] = {name: refresh[name]["kept"] for name in ("warm", "cold")}
        results["refresh_kept"] |= {
            "false_match": refresh["false_match"],
            "same_base_warm": refresh["same_base_warm"]["kept"],
        }
    if "seed_stability" in once:
        results["seed_stability"] = once["seed_stability"]
    if "planted" in once:
        planted = once["planted"]
        results["planted"] = {name: planted[name] for name in ("mcc", "recovered", "frozen_random")}
    return results


def _data_set(parts: Mapping[str, Any]) -> dict[str, Any]:
    genre = parts["probing"]["genre_corr"]["recent"]
    title = parts["coherence"]["title"]
    result = headline(parts["dictionary"]) | {
        "base": parts["base"],
        "genre_corr": {name: genre[name] for name in _GENRE if name in genre},
        "ndcg_kept": {k: one for k, one in parts["ndcg_kept"].items() if k != "seconds"},
        "effective_items": parts["coherence"]["effective_items"],
        "title_coherence_lift": {name: one["lift"] for name, one in title.items() if "lift" in one},
        "intruder": {name: value for name, value in parts["intruder"].items() if name != "seconds"},
        "deletion": {name: value for name, value in parts["deletion"].items() if name != "seconds"},
        "seed_stability": parts["seed_stability"],
    }
    if "steering" in parts:
        result["steering"] = [{name: one[name] for name in _STEERING} for one in parts["steering"]["facets"]]
        result["steering_mean"] = parts["steering"]["mean"]
    for name in ("debiasing", "llm"):
        if name in parts:
            result[name] = {key: value for key, value in parts[name].items() if key != "seconds"}
    return result
