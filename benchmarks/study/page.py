"""`docs/results.md`: the study as one page, figures beside their controls, aims and public numbers, with plots.

Not here: how anything is measured (the parts; docs/method.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import Machine
from benchmarks.study.markdown import interval, is_interval, number, table
from benchmarks.study.plots import draw
from benchmarks.study.results import debiasing_of

_COMMAND = "make paper DATA=../shared/data"
Found = Mapping[str, Mapping[str, Any]]


def write_page(found: Found, out: Path, machine: Machine) -> None:
    """Writes `results.md` and `results/*.svg` into `out`."""
    plots = draw(found, out / "results")
    lines = [
        "# Results",
        "",
        f"Computed on {datetime.now(UTC):%Y-%m-%d} on {machine.cores} cores of {machine.processor} by `{_COMMAND}`; "
        "base models were trained on one H200 and are read from the cache. Every score is defined in "
        "[method.md](method.md); brackets are 95 % intervals over users unless said otherwise. As data: "
        "[results.json](results.json).",
        "",
        *_main_table(found),
        *_dictionaries(found),
        *_kept(found),
        *_probing(found),
        *_coherence(found),
        *_steering(found),
        *_debiasing(found),
        *_others(found),
        *_language_model(found),
        *(f"![{caption}](results/{name})\n" for name, caption in plots),
    ]
    (out / "results.md").write_text("\n".join(lines).rstrip() + "\n")


def _main_table(found: Found) -> list[str]:
    rows = [
        ("base SASRec, NDCG@10 / HR@10 (full ranking)", "", "", _base),
        ("SAE: d, k, latents", "", "", _sae),
        ("NDCG@10 kept by the SAE", "", ".981 (NDCG@20, k = 32 of 512, ELSA)", _side("sae")),
        ("**described NDCG** kept", "", "nothing public", _side("described")),
        ("- permuted descriptions", "", "", _side("permuted")),
        ("- facets, no SAE, equal length", "", "", _side("linear")),
        ("**described score**", ">= .45", "", lambda p: interval(p["dictionary"]["sae"]["described_ndcg"]["score"])),
        ("verified, share of live", ">= .60", "", _share("verified")),
        ("verified, share of mass", ">= .75", "", lambda p: number(p["dictionary"]["sae"]["verified"]["mass"])),
        ("- untrained network", "", "", _share("verified", "untrained")),
        ("- trained minus untrained", ">= .40", "", _difference("verified")),
        ("semantic, share of live", ">= .35", "", _share("semantic")),
        ("confidence >= .5, share of live", ">= .25", "", _share("confident")),
        ("genre correlation", ">= .9 of the probe", ".658 (in-sample, L0 88)", _genre("sae")),
        ("- linear probe", "", "", _genre("linear_probe")),
        ("- data-point directions", "sae - .10", "", _genre("data_points")),
        ("title coherence lift", ">= 3 (Beauty)", "1.68", _title("evidence")),
        ("- RecSAE's own method, same SAE", "", "", _title("recsae")),
        (
            "intruder found by metadata the label does not use, verified (chance .20)",
            "",
            "",
            _intruder("facets", "verified"),
        ),
        ("- items of four concepts mixed", "", "", _intruder("facets", "control")),
        ("intruder found by who consumed the items, verified", "", "", _intruder("users", "verified")),
    ]
    names = list(found)
    head = ["", *names, "aim (MovieLens-1M)", "public"]
    body = [[label, *(_safe(cell, found[name]) for name in names), aim, public] for label, aim, public, cell in rows]
    return ["## In one table", "", *table(head, body)]


def _dictionaries(found: Found) -> list[str]:
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


def _kept(found: Found) -> list[str]:
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
        lines += [f"{name}:", "", *table(["k", "latents", "SAE", "PCA-k", "adaptive PCA-k", "FVU", "dead"], body)]
    return lines


def _probing(found: Found) -> list[str]:
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


def _coherence(found: Found) -> list[str]:
    lines = ["## Are a latent's distinct items alike?", ""]
    for name, parts in found.items():
        title = parts["coherence"]["title"]
        body = [
            [way.replace("_", " "), interval(one["lift"]), str(one["latents"]), f"{one['distinct_items']:.1f}"]
            for way, one in title.items()
            if isinstance(one, dict) and "lift" in one
        ]
        items = parts["coherence"]["effective_items"]
        lines += [
            f"{name}: titles (brand words removed), lift over random items of equal popularity; effective number of "
            f"deciding items, median {items.get('median', items.get('p50', ''))}.",
            "",
            *table(["chosen by", "lift", "latents", "distinct items"], body),
        ]
    return lines


def _steering(found: Found) -> list[str]:
    lines: list[str] = []
    for name, parts in found.items():
        if "steering" not in parts:
            continue
        body = [
            [
                one["facet"].partition("=")[2],
                f"{one['dlogodds']:.2f} [{one['dlogodds_low']:.2f}, ...]",
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


def _debiasing(found: Found) -> list[str]:
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


def _language_model(found: Found) -> list[str]:
    lines: list[str] = []
    for name, parts in found.items():
        if "llm" in parts and "skipped" not in parts["llm"]:
            rows = [[key.replace("_", " "), interval(one)] for key, one in parts["llm"].items() if is_interval(one)]
            lines += [f"## A language model ({name})", "", *table(["", ""], rows)]
    return lines


def _others(found: Found) -> list[str]:
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
            body.append(["planted: mean correlation of matched latents", number(planted["mcc"])])
    return [*lines, *table(["", ""], body)]


def _base(parts: Mapping[str, Any]) -> str:
    test = parts["base"]["test"]
    return f"{test['ndcg@10']:.4f} / {test['hr@10']:.4f}"


def _sae(parts: Mapping[str, Any]) -> str:
    return f"64, {parts['base']['sae']['k']}, {parts['base']['sae']['width']}"


def _side(side: str) -> Any:
    return lambda parts: interval(parts["dictionary"]["sae"]["described_ndcg"][side])


def _share(kind: str, code: str = "sae") -> Any:
    def cell(parts: Mapping[str, Any]) -> str:
        one = parts["dictionary"][code][kind]
        return f"{one['share']:.3f} [{one['ci'][0]:.3f}, {one['ci'][1]:.3f}]"

    return cell


def _difference(kind: str) -> Any:
    def cell(parts: Mapping[str, Any]) -> str:
        one = parts["dictionary"]["trained_minus_untrained"][kind]
        return f"{one['difference']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"

    return cell


def _genre(method: str) -> Any:
    return lambda parts: interval(parts["probing"]["genre_corr"]["recent"][method])


def _title(way: str) -> Any:
    return lambda parts: interval(parts["coherence"]["title"][way]["lift"])


def _intruder(judge: str, which: str) -> Any:
    return lambda parts: interval(parts["intruder"][judge][which])


def _safe(cell: Any, parts: Mapping[str, Any]) -> str:
    try:
        text: str = cell(parts)
    except KeyError:
        return "-"
    return text
