"""`docs/results.md`: the study as one page, figures beside their controls, aims and public numbers, with plots.

Not here: how anything is measured (the parts; docs/method.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import Machine
from benchmarks.study import sections
from benchmarks.study.aims import reached
from benchmarks.study.markdown import interval, number, table
from benchmarks.study.plots import draw

_COMMAND = "make paper DATA=FOLDER"
Found = Mapping[str, Mapping[str, Any]]


def write_page(found: Found, out: Path, machine: Machine) -> None:
    """Writes `results.md` and `results/*.svg` into `out`."""
    plots = draw(found, out / "results")
    lines = [
        "# Results",
        "",
        f"Written on {datetime.now(UTC):%Y-%m-%d} on {machine.cores} cores of {machine.processor} by `{_COMMAND}`; "
        f"{_bases(found)}. Every score is defined in [method.md](method.md). Brackets are 95 % intervals: over users; "
        "for shares of latents Wilson's; for coherence over latents, for planted data over seeds, for a language model "
        "over concepts. As data: "
        "[results.json](results.json).",
        "",
        *_aims(found),
        *_main_table(found),
        *sections.dictionaries(found),
        *sections.settings(found),
        *sections.kept(found),
        *sections.probing(found),
        *sections.coherence(found),
        *sections.steering(found),
        *sections.debiasing(found),
        *sections.others(found),
        *sections.language_model(found),
        *(f"![{caption}](results/{name})\n" for name, caption in plots),
    ]
    (out / "results.md").write_text("\n".join(lines).rstrip() + "\n")


def _bases(found: Found) -> str:
    """Where the base models were trained, as their records say."""
    where = [f"{name} on {parts['base']['trained_on']}" for name, parts in found.items()]
    return f"base models trained for {', '.join(where)}"


def _aims(found: Found) -> list[str]:
    rows = [
        [
            aim.name,
            aim.data,
            f"{'<=' if aim.at_most else '>='} {aim.least:g}",
            number(value),
            "" if aim.met(value) else "missed",
        ]
        for aim, value in reached(found)
    ]
    return [
        "## Aims",
        "",
        "Point estimates; intervals stand in the tables below. Verification users were read more than once while the "
        "study was made: the size of the SAE (see *Other sizes*), what the describer maximises and how handles are "
        "found were chosen with their figures in view on MovieLens-1M, so those are a little optimistic. Amazon "
        "Beauty took what was chosen there.",
        "",
        *table(["", "data", "aim", "reached", ""], rows),
    ]


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
