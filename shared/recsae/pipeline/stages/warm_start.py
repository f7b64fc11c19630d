"""Where training starts: from the SAE in production when that was asked for and it fits, else from nothing.

When production is of another version of the model, its SAE is turned into the new space first, by the probe rows that
its dictionary carries (`recsae.sae.turning`).
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from recsae.concepts.probe_set import Reader, Reading, load_probe_set, read_again
from recsae.pipeline.lanes import Lane
from recsae.pipeline.sources import SourceModel
from recsae.pipeline.stages.before import triple_before
from recsae.pipeline.stages.embedding import embedder
from recsae.pipeline.stages.material import fitted, whole_run_data
from recsae.pipeline.steps import StepContext
from recsae.pipeline.triples import Triple
from recsae.sae.alignment import align
from recsae.sae.turning import turn_weights
from recsae.sae.weights import SaeWeights, load_weights, save_weights

# Below this the two models have next to nothing in common, and a turned SAE is no better than a random one.
_LEAST_EXPLAINED = 0.3


@dataclass(frozen=True)
class Start:
    """Version of the SAE to go on from, "" for a cold start; `words` say which and why, "" when none was asked for.

    `turned`: it was turned into the space of this model, and lies in the work folder.
    """

    sae_version: str = ""
    words: str = ""
    turned: bool = False


def start_of(context: StepContext, lane: Lane, model: SourceModel, width: int) -> Start:
    """The start for an SAE of `width` latents on the activations of `model`.

    Chosen once per run: production may change before the next attempt, whose checkpoint names the start it had. The
    untrained control always starts cold: it must know nothing of what the model learnt.
    """
    if not context.run.config.warm_start or lane.prefix:
        return Start()
    file = f"{lane.stage('train')}/start.json"
    if context.workspace.exists(file):
        return Start(**context.workspace.read_json(file))
    start = _choose(context, lane, model, width)
    context.workspace.write_json(file, asdict(start))
    return start


def start_folder(context: StepContext, lane: Lane, start: Start) -> Path | None:
    """Where the weights to go on from lie; None for a cold start."""
    if start.turned:
        return context.workspace.fetch_folder(_turned_folder(lane))
    return context.platform.artifacts.fetch("sae", start.sae_version).folder if start.sae_version else None


def _choose(context: StepContext, lane: Lane, model: SourceModel, width: int) -> Start:
    triple = triple_before(context)
    if not triple.sae_version:
        return Start(words=f"cold start: model {model.name} has no SAE in production")
    weights = load_weights(context.platform.artifacts.fetch("sae", triple.sae_version).folder)
    if (weights.d, weights.width) != (model.dim, width):
        return Start(
            words=f"cold start: SAE {triple.sae_version} in production is {weights.width} x {weights.d}, "
            f"this one {width} x {model.dim}"
        )
    if triple.model_version == model.version:
        return Start(triple.sae_version, f"warm start from SAE {triple.sae_version}")
    return _turned(context, lane, model, triple, weights)


def _turned(context: StepContext, lane: Lane, model: SourceModel, triple: Triple, weights: SaeWeights) -> Start:
    of = f"SAE {triple.sae_version} of model version {triple.model_version}"
    reading = _read_by_both(context, lane, model, triple)
    if reading is None or len(reading.new) < model.dim:
        return Start(words=f"cold start: {of} left too few probe rows to turn it into this model's space")
    new, old = (x.reshape(-1, model.dim) for x in (reading.new, reading.old))
    if len(new) != len(old):
        return Start(words=f"cold start: {of} is of another number of interests")
    alignment = align(new, old)
    if alignment.explained < _LEAST_EXPLAINED:
        return Start(words=f"cold start: {of} has little in common with this one ({alignment.explained:.0%} explained)")
    with tempfile.TemporaryDirectory() as folder:
        save_weights(turn_weights(weights, alignment, new, old), Path(folder))
        context.workspace.put_folder(_turned_folder(lane), Path(folder))
    words = f"warm start from {of}, turned ({alignment.explained:.0%} of the variance explained)"
    return Start(triple.sae_version, words, turned=True)


def _read_by_both(context: StepContext, lane: Lane, model: SourceModel, triple: Triple) -> Reading | None:
    folder = context.platform.artifacts.fetch("dictionary", triple.dictionary_version).folder
    probe = load_probe_set(folder)
    if probe is None:
        return None
    data = fitted(context, lane, whole_run_data(context), model)
    users = () if model.reads_history_alone else data.dataset.users.ids
    embed = embedder(context, model, data)
    return read_again(probe, Reader(data.dataset.items.ids, embed, model.described_history, user_ids=users))


def _turned_folder(lane: Lane) -> str:
    return f"{lane.stage('train')}/start"
