"""Sections of the study's page behind its first table. Not here: how anything is measured (the parts)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.study.markdown import interval, is_interval, number, table
from benchmarks.study.results import debiasing_of

Found = Mapping[str, Mapping[str, Any]]


def settings(found: Found) -> list[str]:
    """The same dictionary at other sizes of the SAE."""
    lines: list[str] = []
    for name, parts in found.items():
        if "settings" not in parts:
            continue
        own = parts["base"]["sae"]
        every = {f"{own['k']}/{own['width']} (published)": parts["dictionary"]["sae"], **parts["settings"]}
        rows = [
            [
                size,
                number(one["described_ndcg"]["sae"]["value"]),
                *(f"{one[kind]['share']:.1%}" for kind in ("verified", "semantic", "confident")),
                f"{one['verified']['mass']:.1%}",
                interval(one["described_ndcg"]["score"]),
                number(one["described_ndcg"]["linear_score"]["value"]),
            ]
            for size, one in every.items()
            if isinstance(one, Mapping)
        ]
        head = ["k/latents", "NDCG@10 kept", "verified", "semantic", "confident", "verified mass", "described score"]
        lines += [f"Other sizes of the SAE, {name} (the published one was chosen with these figures in view):", ""]
        lines += table([*head, "linear, equal length"], rows)
    return lines


def dictionaries(found: Found) -> list[str]:
    """Counts and masses of every code beside its controls."""
    lines = ["## Dictionaries beside their controls", ""]
    kinds = ("verified", "semantic", "item_set", "confident", "too_rare")
    for name, parts in found.items():
        codes = {code: one for code, one in parts["dictionary"].items() if isinstance(one, dict) and "live" in one}
        if "unseen_users" in parts:
            codes["users unseen by the base model too"] = parts["unseen_users"]
        body = [
            [
                code.replace("_", " "),
                str(one["live"]),
                *(f"{one[kind]['share']:.1%} / {one[kind]['mass']:.1%}" for kind in kinds),
                "-" if code.startswith("untrained") else number(one["described_ndcg"]["score"]["value"]),
            ]
            for code, one in codes.items()
        ]
        head = ["", "live", *(kind.replace("_", " ") for kind in kinds), "described score"]
        lines += [f"{name}, share of live latents / of activation mass:", "", *table(head, body)]
        covered = parts["dictionary"]["sae"]["coverage"]
        text = ", ".join(f"{threshold}: {one['share']:.1%} / {one['mass']:.1%}" for threshold, one in covered.items())
        controls = parts["dictionary"]["sae"]["controls"]
        lines += [
            f"Coverage by balanced F1, count / mass: {text}. Mean F1 at the natural mix {controls['f1']:.3f}, "
            f"beside label swaps {controls['swap_f1']:.3f}, the best popularity rule {controls['popularity_f1']:.3f}, "
            f"always true {controls['always_true_f1']:.3f}.",
            "",
        ]
    return lines


def kept(found: Found) -> list[str]:
    """Quality kept by k beside principal components."""
    lines = ["## Quality kept (NDCG@20)", ""]
    for name, parts in found.items():
        body = [
            [
                k + ("" if one["sparse"] else " (not sparse)"),
                str(one["width"]),
                f"{one['sae']:.3f} [{one['ci'][0]:.3f}, {one['ci'][1]:.3f}]",
                f"{one['pca']:.3f}",
                f"{one['adaptive_pca']:.3f}",
                f"{one['fvu']:.3f}",
                f"{one['dead']:.1%}",
            ]
            for k, one in parts["ndcg_kept"].items()
            if k != "seconds"
        ]
        body.sort(key=lambda row: int(row[0].split()[0]))
        lines += [f"{name}:", "", *table(["k", "latents", "SAE", "PCA-k", "adaptive PCA-k", "FVU", "dead"], body)]
    return lines


def probing(found: Found) -> list[str]:
    """Attributes' correlations and k-sparse probing."""
    lines = ["## Probing", ""]
    for name, parts in found.items():
        genre = parts["probing"]["genre_corr"]["recent"]
        body = [[label.replace("_", " "), interval(one)] for label, one in genre.items() if is_interval(one)]
        lines += [f"{name}, mean correlation with an attribute's recency-weighted share:", "", *table(["", ""], body)]
        sparse = parts["probing"]["k_sparse"]
        rows = [
            [method.replace("_", " "), *(interval(one[k]["f1"]) for k in ("k1", "k2", "k5"))]
            for method, one in sparse.items()
            if "k1" in one
        ]
        rows.append(["linear probe, all", interval(sparse["linear_probe"]["f1"]), "", ""])
        lines += [
            f"{name}, k-sparse probing, F1 for the newest item's attributes:",
            "",
            *table(["", "k = 1", "k = 2", "k = 5"], rows),
        ]
    return lines


def coherence(found: Found) -> list[str]:
    """How alike the distinct items of a latent are."""
    lines = ["## Are a latent's distinct items alike?", ""]
    for name, parts in found.items():
        title = parts["coherence"]["title"]
        body = [
            [
                way.replace("_", " "),
                interval(one["lift"]),
                interval(one["intra_over_inter"]),
                interval(one.get("over_recsae", "")),
                interval(one.get("over_best_rival", "")),
                str(one["latents"]),
                f"{one['distinct_items']:.1f}",
            ]
            for way, one in title.items()
            if isinstance(one, dict) and "lift" in one
        ]
        items = parts["coherence"]["effective_items"]
        lines += [
            f"{name}: titles (brand words removed), lift over random items of equal popularity; effective number of "
            f"deciding items, median {items.get('median', items.get('p50', ''))}.",
            "",
            *table(
                [
                    "chosen by",
                    "lift",
                    "intra / inter",
                    "over RecSAE's way",
                    "over RecSAE's best SAE",
                    "latents",
                    "distinct items",
                ],
                body,
            ),
        ]
    return lines


def steering(found: Found) -> list[str]:
    """Facets steered to at a loss of 2 %, and means over them."""
    lines: list[str] = []
    for name, parts in found.items():
        if "steering" not in parts:
            continue
        body = [
            [
                one["facet"].partition("=")[2],
                interval(one["at_loss"]["2%"]["handle"]),
                f"{one['loss']:.1%} (upper {one['loss_upper']:.1%})",
                f"{one['out_of_facet_loss']:.1%}",
                f"{one['off_target_excess']:.3f}",
                f"{one['null_percentile']:.2f}",
                str(one["concepts"]),
            ]
            for one in parts["steering"]["facets"]
        ]
        head = ["facet", "log-odds of share", "NDCG loss", "loss outside", "off target", "null percentile", "concepts"]
        lines += [f"## Steering ({name}), at a point loss of 2 %", "", *table(head, body)]
        methods = ("handle", "single", "difference_of_means", "tag", "handle_minus_difference_of_means")
        means = [
            [method.replace("_", " "), *(interval(one[method]) for one in parts["steering"]["mean"].values())]
            for method in methods
        ]
        losses = [f"at {loss} loss" for loss in parts["steering"]["mean"]]
        lines += ["Gain in log-odds, mean over these facets:", "", *table(["", *losses], means)]
    return lines


def debiasing(found: Found) -> list[str]:
    """Both worked cases at a loss of 2 %."""
    lines: list[str] = []
    for name, parts in found.items():
        if "debiasing" not in parts:
            continue
        figures = debiasing_of(parts["debiasing"])
        rows = [
            [method.replace("_", " "), *(number(one.get(key, "")) for key in ("tail_share", "gini", "mean_log_count"))]
            for method, one in figures["popularity"].items()
        ]
        head = ["", "share of the long tail", "Gini", "mean ln(1 + count)"]
        lines += [f"## Debiasing ({name}), at a loss of 2 %", "", *table(head, rows)]
        if "gender" in figures:
            rows = [
                [
                    way.replace("_", " "),
                    *(number(one.get(key, "")) for key in ("probe_auc", "list_gap", "chance_gap")),
                    interval(one.get("ndcg_kept", "")),
                ]
                for way, one in figures["gender"].items()
                if isinstance(one, Mapping)
            ]
            head = ["gender", "probe AUC", "gap of lists", "by chance", "NDCG@10 kept"]
            lines += table(head, rows)
    return lines


def language_model(found: Found) -> list[str]:
    """A language model's figures, where one was asked."""
    lines: list[str] = []
    for name, parts in found.items():
        if "llm" in parts and "skipped" not in parts["llm"]:
            rows = [[key.replace("_", " "), interval(one)] for key, one in parts["llm"].items() if is_interval(one)]
            lines += [f"## A language model ({name})", "", *table(["", ""], rows)]
    return lines


def others(found: Found) -> list[str]:
    """Refreshes, seeds and planted data."""
    lines = ["## Refresh, seeds, planted data", ""]
    body: list[list[str]] = []
    for name, parts in found.items():
        stable = parts["seed_stability"]
        body.append(
            [
                f"{name}: verified latents found by all of {stable['seeds']} seeds, count / mass",
                f"{stable['verified']['count']:.1%} / {stable['verified']['mass']:.1%} "
                f"(chance {stable['by_chance']['count']:.1%})",
            ]
        )
        if "refresh" in parts:
            refresh = parts["refresh"]
            body += [
                [f"refresh, {way.replace('_', ' ')}: verified concepts kept", interval(refresh[way]["kept"])]
                for way in ("warm", "cold", "same_base_warm", "same_base_cold", "same_sae")
                if way in refresh
            ]
            body.append(["refresh, false matches", interval(refresh["false_match"])])
        if "planted" in parts:
            planted = parts["planted"]
            body.append(["planted: recovered with the right label", number(planted["recovered"])])
            body.append(["- frozen random SAE", number(planted["frozen_random"]["recovered"])])
            body.append(["planted: latents verified, whatever their label says", number(planted["verified"])])
            body.append(["- frozen random SAE", number(planted["frozen_random"]["verified"])])
            body.append(["planted: mean correlation of matched latents", number(planted["mcc"])])
    return [*lines, *table(["", ""], body)]
