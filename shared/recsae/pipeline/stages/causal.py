"""Stage causal: what turning each concept does on a fixed panel, and handles; the records are completed with it.

Needs a dot-product head, whose scores can be computed here. Any other head is reported as not measured: its concepts
have no safe range then, and policies on them are refused unless they ask for that.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recsae.concepts.causal.board import Head
from recsae.concepts.causal.handles import HandleFinder, HandlePanels, find_handles, handle_facets
from recsae.concepts.causal.measuring import Effects, measure
from recsae.concepts.causal.panel import Panel, build_panel
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.handles import Handle
from recsae.concepts.inputs import DictionaryInputs
from recsae.pipeline.advance import StepResult
from recsae.pipeline.lanes import Lane, lane_of
from recsae.pipeline.stages import verify
from recsae.pipeline.stages.concepts import dictionary_inputs, published_sae
from recsae.pipeline.stages.material import Part, RunData, load_run_data, open_shards, read_plan
from recsae.pipeline.steps import StepContext

_NULL_PERCENTILE = 0.95


def dictionary_folder(lane: Lane) -> str:
    """Where the dictionary with its effects lies in the work folder."""
    return f"{lane.stage('causal')}/dictionary"


def causal(context: StepContext) -> StepResult:
    """The whole stage."""
    lane = lane_of(context.step.stage, context.run.config)
    sae_version = published_sae(context)
    folder = context.workspace.fetch_folder(verify.dictionary_folder(lane))
    dictionary = Dictionary.load(folder, "unpublished")
    inputs = dictionary_inputs(context, lane, sae_version=sae_version)
    head = _head(context, lane, inputs)
    if head is None:
        _save(context, lane, dictionary)
        return StepResult({}, {"measured": 0}, "effects not measured: the head is no dot product")
    data = load_run_data(context.platform, context.run)
    panel, before = _panels(context, lane, inputs, data)
    progress = context.report
    found = measure(
        panel, head, inputs.facets, inputs.sae, dictionary, progress=lambda text, done: progress(text, 0.7 * done)
    )
    handles = _handles(panel, before, head, inputs, dictionary, lambda text, done: progress(text, 0.7 + 0.3 * done))
    facts = {**summary(found, panel), "handles": len(handles)}
    concepts = tuple(replace(one, causal=found.records.get(one.latent)) for one in dictionary.concepts)
    summed = {**dictionary.summary, "causal": facts}
    _save(context, lane, replace(dictionary, concepts=concepts, summary=summed, handles=handles))
    scores = {f"causal.{name}": float(value) for name, value in facts.items() if name != "panel"}
    detail = (
        f"{found.measured:,} of {found.live:,} live concepts turned on {len(panel):,} users, {len(handles)} handles"
    )
    return StepResult(scores, {"measured": found.measured, "panel": panel.fingerprint}, detail)


def summary(found: Effects, panel: Panel) -> Mapping[str, Any]:
    """Figures over all measured concepts: how many, on whom, and shares of them."""
    records = list(found.records.values())
    shares: dict[str, float] = {}
    if records:
        for operation in ("add", "ablate", "scale", "set", "cap"):
            ranges = [one.safe_range(operation) for one in records]
            shares[f"safe_{operation}_share"] = float(np.mean([one is not None and not one.empty for one in ranges]))
        shares["agreement_share"] = float(np.mean([one.agreement for one in records]))
        shares["above_null_share"] = float(np.mean([one.null_percentile >= _NULL_PERCENTILE for one in records]))
    return {
        "panel": panel.fingerprint,
        "panel_users": len(panel),
        "measured": found.measured,
        "live": found.live,
        **{name: round(value, 6) for name, value in shares.items()},
    }


def _head(context: StepContext, lane: Lane, inputs: DictionaryInputs) -> Head | None:
    """Vectors and biases by the data set's item indices; None for a head that is no dot product."""
    if inputs.item_vectors is None:
        return None
    exported = context.platform.source.item_vectors(read_plan(context.workspace, lane).model)
    if exported is None or exported.biases is None:
        return Head(inputs.item_vectors)
    bias_of = dict(zip(exported.item_ids, exported.biases.tolist(), strict=True))
    biases = np.array([0.0, *(bias_of[item_id] for item_id in inputs.item_ids)], np.float32)
    return Head(inputs.item_vectors, biases)


def _panels(context: StepContext, lane: Lane, inputs: DictionaryInputs, data: RunData) -> tuple[Panel, Panel]:
    """The panel, and its users one item earlier."""
    rows = open_shards(context.workspace, lane, Part.CONSTRUCTION, Part.VERIFICATION).mapped()
    parts, seed = inputs.parts[:-1], inputs.seed
    now = build_panel(rows, data.histories, data.targets, inputs.pseudonyms, parts, seed=seed)
    before = build_panel(rows, data.histories, data.targets, inputs.pseudonyms, parts, back=1, seed=seed)
    return now, before


def _handles(
    panel: Panel,
    before: Panel,
    head: Head,
    inputs: DictionaryInputs,
    dictionary: Dictionary,
    progress: Callable[[str, float], None],
) -> tuple[Handle, ...]:
    """Handles of the facets worth one; none where a part of the users has nobody on the panel."""
    constructs = ~panel.verifies
    if not constructs.any() or constructs.all() or before.verifies.all():
        return ()
    panels = HandlePanels(before.of(~before.verifies), panel.of(constructs), panel.of(panel.verifies))
    finder = HandleFinder(panels, head, inputs.facets, inputs.sae.w_dec, dictionary)
    return find_handles(finder, handle_facets(dictionary, inputs.facets, finder.scoring), progress)


def _save(context: StepContext, lane: Lane, dictionary: Dictionary) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dictionary.save(Path(folder))
        context.workspace.put_folder(dictionary_folder(lane), Path(folder))
