"""Where training starts: from the SAE in production when that was asked for and it fits, else from nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from recsae.pipeline.lanes import Lane
from recsae.pipeline.sources import SourceModel
from recsae.pipeline.steps import StepContext
from recsae.sae.weights import load_weights
from recsae.store.channels import PRODUCTION


@dataclass(frozen=True)
class Start:
    """Version of the SAE to go on from, "" for a cold start; `words` say which and why, "" when none was asked for."""

    sae_version: str = ""
    words: str = ""


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
    start = _choose(context, model, width)
    context.workspace.write_json(file, asdict(start))
    return start


def _choose(context: StepContext, model: SourceModel, width: int) -> Start:
    triple = context.platform.channels.read(model.name).channel(PRODUCTION).triple
    if not triple.sae_version:
        return Start(words=f"cold start: model {model.name} has no SAE in production")
    weights = load_weights(context.platform.artifacts.fetch("sae", triple.sae_version).folder)
    if (weights.d, weights.width) != (model.dim, width):
        return Start(
            words=f"cold start: SAE {triple.sae_version} in production is {weights.width} x {weights.d}, "
            f"this one {width} x {model.dim}"
        )
    other = "" if triple.model_version == model.version else f" of model version {triple.model_version}"
    return Start(triple.sae_version, f"warm start from SAE {triple.sae_version}{other}")
