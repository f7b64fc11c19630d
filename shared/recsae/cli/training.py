"""From a data set of the workspace to two published bundles: a trained SASRec, and the same network untrained.

The untrained one is the control concepts are judged against: what its dictionary passes, any network would.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recsae.cli.workspace import DatasetEntry, ModelEntry, Workspace

Report = Callable[[float, str], None]
CONTROL_SUFFIX = "-untrained"


@dataclass(frozen=True)
class TrainedModels:
    """The model, with its test scores, and its untrained control."""

    model: ModelEntry
    control: ModelEntry


def train_models(
    workspace: Workspace,
    dataset: DatasetEntry,
    *,
    name: str = "sasrec",
    epochs: int = 0,
    seed: int = 0,
    progress: Report = lambda share, text: None,
    reuse: bool = False,
) -> TrainedModels:
    """Trains, exports, scores on the test items and publishes; both models are entered in the workspace.

    `epochs` 0 is the default schedule. `reuse` returns what is there already when it was trained on this very data.
    """
    if reuse and (found := _existing(workspace, dataset, name)) is not None:
        progress(1.0, f"{name} is trained already")
        return found
    from recsae.datasets.schema import load_dataset
    from recsae.datasets.splits import leave_one_out
    from recsae.recommenders.evaluation import evaluate
    from recsae.recommenders.families.family import EpochReport
    from recsae.recommenders.families.sasrec import SasrecConfig, untrained_sasrec
    from recsae.recommenders.families.sequence import export_network
    from recsae.recommenders.runtime import OnnxRecommender
    from recsae.recommenders.training import train_network

    data = load_dataset(dataset.folder)
    split = leave_one_out(data.histories)
    config = SasrecConfig(seed=seed, epochs=epochs or SasrecConfig().epochs)

    def report(done: EpochReport) -> None:
        text = f"epoch {done.epoch}: loss {done.loss:.3f}, validation HR@10 {done.hr_at_10:.3f}"
        progress(0.95 * done.epoch / done.epochs, text)

    trained = train_network(split, data.items.count, config, report)
    progress(0.95, "exporting and testing")
    with tempfile.TemporaryDirectory() as folder:
        bundle = export_network(trained.model, data.items, Path(folder), name, trained.metrics)
        scores = evaluate(OnnxRecommender(bundle), split).as_scores()
        model = _publish(workspace, Path(folder), name, dataset, scores)
    with tempfile.TemporaryDirectory() as folder:
        control_name = name + CONTROL_SUFFIX
        export_network(untrained_sasrec(config.shape(data.items.count), seed), data.items, Path(folder), control_name)
        control = _publish(workspace, Path(folder), control_name, dataset, {})
    progress(1.0, f"published {name} {model.version}")
    return TrainedModels(model, control)


def _publish(
    workspace: Workspace, folder: Path, name: str, dataset: DatasetEntry, scores: dict[str, float]
) -> ModelEntry:
    from recsae.recommenders.bundle import publish_bundle

    version = publish_bundle(workspace.artifacts(), folder, lineage={"dataset": dataset.version}, scores=scores)
    entry = ModelEntry(name, version, dataset.name, scores)
    workspace.add_model(entry)
    return entry


def _existing(workspace: Workspace, dataset: DatasetEntry, name: str) -> TrainedModels | None:
    """Both models, when the artifact's lineage says that they come from this version of the data."""
    store = workspace.artifacts()
    entries = {entry.name: entry for entry in workspace.models()}
    model, control = entries.get(name), entries.get(name + CONTROL_SUFFIX)
    if model is None or control is None:
        return None
    if any(store.fetch("model", entry.version).lineage.get("dataset") != dataset.version for entry in (model, control)):
        return None
    return TrainedModels(model, control)
