"""Stage verify: the labels are judged once, on users nobody has looked at, beside the control."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsae.concepts.catalogue import load_catalogue
from recsae.concepts.description import Description
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.judgement import verify as judge
from recsae.concepts.origins import Lineage
from recsae.concepts.probe_set import load_probe_set
from recsae.pipeline.advance import StepResult, read_facts
from recsae.pipeline.lanes import Lane, lane_of
from recsae.pipeline.stages.concepts import VERIFIED, dictionary_inputs, published_sae
from recsae.pipeline.stages.describe import description_folder
from recsae.pipeline.stages.ranking import ranked_rows
from recsae.pipeline.stages.train import sae_folder
from recsae.pipeline.steps import StepContext
from recsae.sae.runtime import SparseAutoencoder

_CLASSES = ("verified", "semantic", "item_set", "confident", "too_rare")


def dictionary_folder(lane: Lane) -> str:
    """Where the finished dictionary lies in the work folder."""
    return f"{lane.stage('verify')}/dictionary"


def verify(context: StepContext) -> StepResult:
    """The whole stage."""
    lane = lane_of(context.step.stage, context.run.config)
    control = None
    if context.run.config.control_model:
        control = read_facts(context.workspace, "control_verify")["summary"]
    inputs = dictionary_inputs(context, lane, sae_version=published_sae(context), control=control, parts=VERIFIED)
    described = context.workspace.fetch_folder(description_folder(lane))
    description, probe = Description.load(described), load_probe_set(described)
    catalogue = load_catalogue(described)
    sae = SparseAutoencoder.load(context.workspace.fetch_folder(sae_folder(lane)), published_sae(context))
    dictionary = judge(inputs, description, context.report, ranked_rows(context, lane, inputs, sae))
    with tempfile.TemporaryDirectory() as folder:
        dictionary.save(Path(folder))
        if probe is not None:
            probe.save(Path(folder))
        if catalogue is not None:
            catalogue.save(Path(folder))
        context.workspace.put_folder(dictionary_folder(lane), Path(folder))
    summary = dict(dictionary.summary)
    scores = summary_scores("concepts", summary) | lineage_scores(dictionary.lineage)
    return StepResult(scores, {"summary": summary}, _sentence(dictionary))


def summary_scores(prefix: str, summary: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a dictionary's summary that run records carry."""
    scores = {f"{prefix}.live": float(summary["live"]), f"{prefix}.dead": float(summary["dead"])}
    for name in _CLASSES:
        scores[f"{prefix}.{name}"] = float(summary[name]["count"])
        scores[f"{prefix}.{name}_share_of_live"] = float(summary[name]["share_of_live"])
    if "described_ndcg" in summary:
        found = summary["described_ndcg"]
        scores |= {
            f"{prefix}.described_ndcg": found["described"]["value"],
            f"{prefix}.described": found["score"]["value"],
        }
    return scores


def lineage_scores(lineage: Lineage | None) -> dict[str, float]:
    """The figures of a lineage that run records carry; none where there was no dictionary before."""
    if lineage is None:
        return {}
    summary = lineage.summary()
    scores = {f"lineage.{status}": float(found["count"]) for status, found in summary["live"].items()}
    scores |= {"lineage.kept": float(summary["kept"]), "lineage.false_match_rate": summary["false_match_rate"]}
    if summary["kept_share"] is not None:
        scores["lineage.kept_share_of_verified"] = summary["kept_share"]
    return scores


def _sentence(dictionary: Dictionary) -> str:
    verified, live = dictionary.summary["verified"]["count"], dictionary.summary["live"]
    words = f"{verified} of {live} live concepts verified"
    if dictionary.lineage is None:
        return words
    before = dictionary.lineage.summary()
    found = sum(int(one["count"]) for one in before["verified"].values())
    return f"{words}; {before['kept']} of {found} verified concepts of the dictionary before kept"
