"""Which function does which stage, and into which shards a stage is cut. Imports nothing numeric before it is asked.

The functions themselves are imported when a step runs, so that `advance` stays light.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

from recsae.pipeline.advance import StepResult, manifest_name, read_facts
from recsae.pipeline.runs import Run
from recsae.pipeline.steps import StageFunction, StepContext
from recsae.pipeline.workspace import Workspace

_PLAN = "plan"
_WHOLE = "all"
_COLLECT_STAGES = ("collect", "control_collect")


def shards_of(run: Run, stage: str, workspace: Workspace) -> Sequence[str]:
    """Shards of a stage known so far.

    Collect makes its plan first, evidence reads each collected shard, a sweep has one per point, others are one step.
    """
    if stage == "sweep" and run.config.sweep is not None:
        return [point.name for point in run.config.sweep.points()]
    if stage == "evidence":
        return _collected(workspace, "collect")
    if stage not in _COLLECT_STAGES:
        return [_WHOLE]
    if not workspace.exists(manifest_name(stage, _PLAN)):
        return [_PLAN]
    return [_PLAN, *_collected(workspace, stage)]


def _collected(workspace: Workspace, stage: str) -> list[str]:
    return [shard["name"] for shard in read_facts(workspace, stage, _PLAN)["shards"]]


class _Lazy:
    """A stage function imported when it is called."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, context: StepContext) -> StepResult:
        function: StageFunction = getattr(importlib.import_module(f"recsae.pipeline.stages.{self._module}"), self._name)
        return function(context)


STAGES: Mapping[str, StageFunction] = {
    "collect": _Lazy("collect", "collect"),
    "train": _Lazy("train", "train"),
    "evaluate": _Lazy("evaluate", "evaluate"),
    "evidence": _Lazy("evidence", "evidence"),
    "describe": _Lazy("describe", "describe"),
    "verify": _Lazy("verify", "verify"),
    "llm": _Lazy("llm", "llm"),
    "causal": _Lazy("causal", "causal"),
    "control_collect": _Lazy("collect", "collect"),
    "control_train": _Lazy("train", "train"),
    "control_verify": _Lazy("control", "control_verify"),
    "publish": _Lazy("publish", "publish"),
    "promote": _Lazy("promote", "promote"),
    "sweep": _Lazy("sweep", "sweep"),
    "report": _Lazy("sweep", "report"),
}
