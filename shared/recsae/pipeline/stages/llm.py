"""Stage llm: a language model describes and verifies the concepts of most mass; only in runs that ask for it.

Answers are cached and what was spent is written down before each call, so a step that is tried again neither pays twice
nor exceeds the cap. Not here: what is asked (`recsae.concepts.llm`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.llm.asking import Asker
from recsae.concepts.llm.cache import FolderCache
from recsae.concepts.llm.labelling import LlmRun, figures, label_concepts, largest_concepts, with_llm
from recsae.concepts.llm.options import SETTINGS_PREFIX, LlmOptions
from recsae.concepts.llm.usage import NOTHING, Spend, Usage
from recsae.errors import FailedPreconditionError
from recsae.pipeline.advance import StepResult
from recsae.pipeline.lanes import Lane, lane_of
from recsae.pipeline.platform import Platform
from recsae.pipeline.runs import RunConfig
from recsae.pipeline.stages.causal import measured_folder
from recsae.pipeline.stages.concepts import dictionary_inputs, published_sae
from recsae.pipeline.stages.run_data import Part
from recsae.pipeline.steps import StepContext
from recsae.pipeline.workspace import Workspace

_SPENT = "llm/spent.json"
# The model is shown construction users and rates verification users; it needs no others.
_READ = (Part.CONSTRUCTION, Part.VERIFICATION)


def folder_with_words(lane: Lane) -> str:
    """Where the dictionary with a language model's words lies in the work folder."""
    return f"{lane.stage('llm')}/dictionary"


def finished_folder(context: StepContext, lane: Lane) -> str:
    """Where the dictionary to publish lies: with a language model's words when the run asked for them."""
    return folder_with_words(lane) if context.run.config.llm_concepts else measured_folder(context, lane)


def llm(context: StepContext) -> StepResult:
    """The whole stage."""
    lane, config, platform = lane_of(context.step.stage, context.run.config), context.run.config, context.platform
    options = _options(platform, config)
    asker = Asker(
        options,
        FolderCache(platform.llm_cache or f"{platform.artifact_root.rstrip('/')}/llm-answers"),
        before=_spent(context.workspace),
        record=lambda used: context.workspace.write_json(_SPENT, vars(used)),
    )
    measured = measured_folder(context, lane)
    dictionary = Dictionary.load(context.workspace.fetch_folder(measured), "")
    run = label_concepts(
        dictionary,
        dictionary_inputs(context, lane, sae_version=published_sae(context), parts=_READ),
        asker,
        largest_concepts(dictionary, config.llm_concepts),
        progress=lambda message, share, spend: context.report(message, share, _measures(spend)),
    )
    with tempfile.TemporaryDirectory() as scratch:
        # Probe rows lie beside the dictionary and go where it goes.
        finished = context.workspace.copy_folder(measured, Path(scratch))
        with_llm(dictionary, run).save(finished)
        context.workspace.put_folder(folder_with_words(lane), finished)
    scores = {f"llm.{name}": value for name, value in figures(run).items()}
    return StepResult(scores, {"model": options.model, "stopped": run.spend.stopped}, _sentence(run, config))


def _options(platform: Platform, config: RunConfig) -> LlmOptions:
    if platform.llm is None:
        raise FailedPreconditionError(
            f"the run asks a language model about {config.llm_concepts:,} concepts and this worker has no endpoint; "
            f"set {SETTINGS_PREFIX}URL and {SETTINGS_PREFIX}MODEL for it, or refresh without --llm"
        )
    return platform.llm


def _spent(workspace: Workspace) -> Usage:
    """What earlier attempts at this step used."""
    return Usage(**workspace.read_json(_SPENT)) if workspace.exists(_SPENT) else NOTHING


def _measures(spend: Spend) -> dict[str, float]:
    return {
        "llm_requests": float(spend.requests),
        "llm_tokens": float(spend.usage.tokens),
        "llm_cost": spend.cost,
    }


def _sentence(run: LlmRun, config: RunConfig) -> str:
    found = figures(run)
    words = f"{found['described']:.0f} of {config.llm_concepts:,} concepts described, {found['rated']:.0f} rated"
    words += f", cost {run.spend.cost:.3f}"
    return f"{words}; {run.spend.stopped}" if run.spend.stopped else words
