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


def debiasing_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Both worked cases at a loss of 2 %: how popular lists are, and what gives a user's gender away."""
    methods = ("concepts", "difference_of_means", "reranking")
    popularity = found["popularity"]
    result: dict[str, Any] = {"unsteered": popularity["unsteered"]}
    result |= {name: popularity[name]["at_loss"]["2%"] for name in methods if "2%" in popularity[name]["at_loss"]}
    gender = {name: one for name, one in found.get("gender", {}).items() if name != "separating"}
    return {"popularity": result} | ({"gender": gender} if gender else {})


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
    if "debiasing" in parts:
        result["debiasing"] = debiasing_of(parts["debiasing"])
    if "unseen_users" in parts:
        result["unseen_users"] = {
            name: parts["unseen_users"][name] for name in ("live", "verified", "semantic", "confident")
        }
    if "llm" in parts:
        result["llm"] = {name: value for name, value in parts["llm"].items() if name != "seconds"}
    return result
